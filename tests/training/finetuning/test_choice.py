"""Which of several learning rates becomes the next version, on confusion matrices made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mad_backend.settings import TrainingSettings
from training.finetune import round_job
from training.finetuning.choice import by_risk, choose, hopeless_beside
from training.finetuning.dev import DevScore, read_matrices
from training.finetuning.job import Job
from training.finetuning.plan import EpochRecord, RunResult
from training.project import Project

IMAGES, PIXELS = 40, 1000


@pytest.fixture
def job(finished: Project) -> Job:
    settings = TrainingSettings.model_validate(
        {"learning_rates": [3e-5, 1e-4, 3e-4], "distillation": {"free_rates": [3e-4]}}
    )
    made = round_job(finished, finished.store.rounds.get(2), "scenes@2")
    return replace(made, settings=settings, counted=None)


def run(folder: Path, rate: float, hits: float, spread: float = 0.0) -> RunResult:
    """A run whose share of right pixels is about `hits`, by image more or less by up to `spread`."""
    folder.mkdir()
    rng = np.random.default_rng(int(rate * 1e6))
    right = np.rint(PIXELS * np.clip(hits + rng.uniform(-spread, spread, IMAGES), 0, 1)).astype(np.int64)
    matrices = np.zeros((IMAGES, 2, 3), np.int64)
    for k in (0, 1):
        matrices[:, k, k] = right
        matrices[:, k, 1 - k] = PIXELS - right
    total = matrices.sum(0)
    miou = float(np.mean([total[k, k] / (2 * PIXELS * IMAGES - total[k, k]) for k in (0, 1)]))
    DevScore(miou, None, matrices).write(folder)
    best = EpochRecord(1, 0.1, miou, miou)
    return RunResult(rate, best, (best,), folder)


def test_a_gain_of_more_than_a_standard_error_takes_the_larger_step(job: Job, tmp_path: Path) -> None:
    small, free = run(tmp_path / "s", 3e-5, 0.70), run(tmp_path / "f", 3e-4, 0.75, spread=0.05)
    assert choose(job, [small, free]) == free
    doubtful = run(tmp_path / "d", 1e-4, 0.702, spread=0.2)
    assert choose(job, [small, doubtful]) == doubtful, (
        "1.2 standard errors: not beyond doubt, but more likely than not"
    )
    chance = run(tmp_path / "c", 1e-4, 0.69, spread=0.2)
    assert choose(job, [small, chance]) == small, "0.6 standard errors"


def test_a_step_with_a_teacher_goes_before_a_free_one_of_the_same_quality(job: Job, tmp_path: Path) -> None:
    taught, free = run(tmp_path / "t", 1e-4, 0.75), run(tmp_path / "f", 3e-4, 0.75)
    worse = run(tmp_path / "w", 3e-5, 0.60)
    assert choose(job, [free, taught, worse]) == taught


def test_the_paper_takes_the_best_and_of_equals_the_lower_rate(job: Job, tmp_path: Path) -> None:
    paper = replace(job, settings=TrainingSettings.model_validate({"recipe": "paper"}))
    small, doubtful = run(tmp_path / "s", 3e-5, 0.70), run(tmp_path / "d", 1e-4, 0.702)
    equal = run(tmp_path / "e", 3e-4, 0.702)
    assert choose(paper, [small, equal, doubtful]) == doubtful


def test_a_rate_without_a_teacher_trains_without_one(job: Job) -> None:
    assert job.settings.at(3e-5).distillation.pool > 0
    assert job.settings.at(3e-4).distillation.pool == 0
    assert job.settings.at(3e-4).distillation.labels == 1


def test_a_run_that_a_careful_choice_would_not_take_is_hopeless_after_a_third_of_its_epochs(
    job: Job, tmp_path: Path
) -> None:
    small, weak = run(tmp_path / "s", 3e-5, 0.75), run(tmp_path / "w", 1e-4, 0.60)
    hopeless = hopeless_beside(job, [weak, small], 6)
    assert hopeless is not None
    worse = DevScore(0.5, None, read_matrices(run(tmp_path / "l", 3e-4, 0.70, spread=0.05).folder))
    doubtful = DevScore(0.5, None, read_matrices(run(tmp_path / "d", 2e-4, 0.74, spread=0.2).folder))
    assert hopeless(1, worse) is None, "too early"
    told = hopeless(2, worse)
    assert told is not None
    assert told.beside == 3e-5
    assert told.reason.startswith("epoch 2 is worse than what 3e-05 came to beyond doubt: -")
    assert hopeless(6, worse) is None, "nothing is left to be saved"
    assert hopeless(2, doubtful) is None
    assert hopeless(2, DevScore(0.5)) is None, "its matrices are not known"


def test_only_a_careful_choice_orders_rates_and_gives_any_up(job: Job, tmp_path: Path) -> None:
    found = [run(tmp_path / "s", 3e-5, 0.75)]
    assert hopeless_beside(job, [], 6) is None
    assert by_risk(job, [3e-4, 1e-4, 3e-5]) == [3e-5, 1e-4, 3e-4]
    assert by_risk(job, [5e-4, 3e-4, 1e-3]) == [5e-4, 1e-3, 3e-4], "the one without a teacher last"
    paper = replace(job, settings=TrainingSettings.model_validate({"recipe": "paper"}))
    assert hopeless_beside(paper, found, 6) is None
    assert by_risk(paper, [3e-4, 3e-5]) == [3e-4, 3e-5]


def test_a_free_rate_has_more_passes_unless_somebody_says_how_many() -> None:
    def epochs(rate: float, **given: object) -> int:
        return TrainingSettings.model_validate(given).at(rate).epochs

    assert (epochs(3e-5), epochs(3e-4)) == (3, 12)
    assert (epochs(3e-5, epochs=5), epochs(3e-4, epochs=5)) == (5, 5)
    own = {"free_epochs": 7, "pool": 0}
    assert (epochs(3e-5, epochs=5, distillation=own), epochs(3e-4, epochs=5, distillation=own)) == (5, 7)
    assert epochs(3e-4, recipe="paper") == 80
    told = TrainingSettings.model_validate({"epochs": 5, "distillation": {"mirror": False}})
    assert told.distillation.pool == 1, "the rest is the recipe's"
    assert TrainingSettings.model_validate(told.model_dump(mode="json")) == told
