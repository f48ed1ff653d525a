"""A grid of learning rates: one after another, side by side, and what becomes of those that fail."""

import errno
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mad_backend.errors import StoreError, TrainingError
from mad_backend.settings import TrainingSettings
from tests.training.conftest import CONFIGS, samples_of
from tests.training.finetuning.small_jobs import MakeJob, job_maker
from training.finetuning.files import check_room, save_state
from training.finetuning.grid_search import forget_weights, needed_bytes, search
from training.finetuning.job import Job
from training.finetuning.plan import RunResult
from training.finetuning.rates import run_folder
from training.finetuning.record import begin


@pytest.fixture
def make_job(scenes: Path, tmp_path: Path) -> MakeJob:
    return job_maker(scenes, tmp_path)


@pytest.fixture
def own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are started find the networks of the tests."""
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parent))


class StopError(Exception):
    """Stands for whatever ends a grid."""


def quiet(_note: str, _done: int, _total: int) -> None:
    pass


def best_weights(run: RunResult) -> dict[str, torch.Tensor]:
    return torch.load(run.folder / "best.pt", weights_only=True)["model"]


def assert_close(one: RunResult, other: RunResult) -> None:
    """Up to rounding."""
    for a, b in zip(one.curve, other.curve, strict=True):
        assert (a.loss, a.dev) == pytest.approx((b.loss, b.dev), rel=1e-5)
    weights = best_weights(other)
    for name, value in best_weights(one).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-5, atol=1e-6)


def stop_when(condition: Callable[[str], bool]) -> Callable[[str, int, int], None]:
    def report(note: str, _done: int, _total: int) -> None:
        if condition(note):
            raise StopError

    return report


def test_a_rate_that_diverges_ends_alone(make_job: MakeJob) -> None:
    job = make_job(learning_rates=(1e-2, 1e30))
    found = search(job, quiet)
    assert found.best.learning_rate == 1e-2
    assert [run.learning_rate for run in found.runs] == [1e-2]
    (failed,) = found.failed
    assert failed.learning_rate == 1e30
    assert failed.stopped.startswith("a loss of ")
    assert failed.stopped.endswith(" in epoch 1, step 2")
    assert search(job, stop_when(lambda _note: True)) == found, "it is not tried again"


def test_epochs_before_a_rate_diverges_count(make_job: MakeJob) -> None:
    # Weights grow without bound, by a factor each step, until they are no numbers.
    job = make_job(epochs=60, learning_rates=(1.0,), weight_decay=50.0, momentum=0.0)
    (run,) = search(job, quiet).runs
    assert run.stopped
    assert 1 <= len(run.curve) < 60
    assert all(torch.isfinite(value).all() for value in best_weights(run).values())
    told = json.loads((run.folder / "result.json").read_text())
    assert told["stopped"] == run.stopped


def test_where_every_rate_diverges_the_error_names_each(make_job: MakeJob) -> None:
    job = make_job(learning_rates=(1e29, 1e30))
    with pytest.raises(
        TrainingError, match=r"\(1e\+29: a loss of .*; 1e\+30: a loss of .*\); lower training\.learning_rates"
    ):
        search(job, quiet)


def test_without_memory_for_a_batch_its_parts_give_the_same_run(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    rates = (1e-2, 2e-2)
    wanted = search(make_job(learning_rates=rates), quiet)
    found = search(make_job("HungryNet", "hungry", learning_rates=rates), quiet)
    assert [run.parts for run in wanted.runs] == [1, 1]
    assert [run.parts for run in found.runs] == [4, 4]
    for one, other in zip(found.runs, wanted.runs, strict=True):
        assert_close(one, other)
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("out of memory")]
    assert len(told) == 2, "2 parts, 4 parts, and the second rate knows"
    assert "CUDA out of memory. Tried to allocate 2.00 GiB" in told[1]


def test_memory_that_does_not_suffice_for_one_image_is_told(make_job: MakeJob) -> None:
    with pytest.raises(TrainingError, match=r"one training image at a time .*can't allocate memory.*crop"):
        search(make_job("StarvingNet"), quiet)


def test_a_disk_without_room_is_noticed_before_it_is_full(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(learning_rates=(1e-3, 1e-2, 1e-1))
    module = job.start("cpu").module
    learnt = sum(4 * p.numel() for p in module.parameters())
    all_of_it = learnt + 4 * 8 * 2 + 8  # mean and variance of 8 channels, and the count of batches
    assert needed_bytes(job, 3) == 4 * all_of_it + 2 * (all_of_it + learnt) + 20_000_000
    with pytest.raises(StoreError, match=r"has .* free; fine-tuning to small@1 needs 1000000000\.0 GB"):
        check_room(tmp_path, 10**18, "fine-tuning to small@1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_run_goes_on_when_there_is_room_again(make_job: MakeJob) -> None:
    wanted = search(make_job(), quiet)
    job = make_job(folder="full")
    path = run_folder(job, 1e-2) / f".last.pt.{os.getpid()}.tmp"

    def fill(note: str, _done: int, _total: int) -> None:
        if "epoch 2" in note and not path.is_symlink():
            path.symlink_to("/dev/full")

    with pytest.raises(StoreError, match=r"no room for .*last\.pt: .*the last finished epoch is kept"):
        search(job, fill)
    assert sorted(p.name for p in path.parent.iterdir() if "pt" in p.name) == ["best.pt", "last.pt"]
    notes: list[str] = []
    found = search(job, lambda note, _done, _total: notes.append(note))
    assert "epoch 2 of 3" in notes[0]
    assert found.best.curve == wanted.best.curve
    for name, value in best_weights(wanted.best).items():
        assert torch.equal(value, best_weights(found.best)[name])


def test_no_half_checkpoint_is_left_where_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / f".x.pt.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        save_state(tmp_path / "x.pt", {"weights": torch.zeros(10_000)})
    assert list(tmp_path.iterdir()) == []


def test_a_grid_that_was_ended_between_two_rates_goes_on_to_the_same_result(make_job: MakeJob) -> None:
    rates = (1e-3, 1e-2)
    wanted = search(make_job(learning_rates=rates), quiet)
    job = make_job(folder="ended", learning_rates=rates)
    with pytest.raises(StopError):
        search(job, stop_when(lambda note: "at 0.01" in note))
    notes: list[str] = []
    found = search(job, lambda note, _done, _total: notes.append(note))
    assert not any("at 0.001" in note for note in notes), "the first is not repeated"
    assert found.best.learning_rate == wanted.best.learning_rate
    for one, other in zip(found.runs, wanted.runs, strict=True):
        assert one.curve == other.curve
        assert all(torch.equal(v, best_weights(other)[k]) for k, v in best_weights(one).items())
    assert not list(job.folder.glob("*/last.pt")), "only runs that go on need it"
    forget_weights(job)
    assert not list(job.folder.rglob("*.pt"))
    assert len(list(job.folder.glob("*/result.json"))) == 2


CAREFUL = {
    "choose": "careful",
    "learning_rates": (1e-7, 1e-2),
    # By which the rate that learns nothing comes second.
    "distillation": {"free_rates": [1e-7]},
    "epochs": 6,
}


def with_dev(job: Job, scenes: Path) -> Job:
    """As many images as it takes to be sure."""
    return replace(job, dev=tuple(samples_of(scenes / "t0", "masks", 12)))


def test_a_rate_that_is_worse_beyond_doubt_is_given_up_whatever_happens_meanwhile(
    make_job: MakeJob, scenes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted = search(with_dev(make_job(**CAREFUL), scenes), quiet)
    still, learns = sorted(wanted.runs, key=lambda run: run.learning_rate)
    assert wanted.best == learns
    assert (len(learns.curve), learns.stopped) == (6, None)
    assert len(still.curve) == 2
    assert "is worse than what 0.01 came to beyond doubt" in str(still.stopped)
    assert "at 1e-07: the run is ended, as epoch 2 is worse" in caplog.text
    job = with_dev(make_job(folder="ended", **CAREFUL), scenes)
    with pytest.raises(StopError):
        search(job, stop_when(lambda note: "at 1e-07 epoch 2" in note))
    found = search(job, quiet)
    assert [(r.curve, r.stopped) for r in found.runs] == [(r.curve, r.stopped) for r in wanted.runs]
    begin(job)
    assert run_folder(job, 1e-7).exists()
    begin(replace(job, settings=job.settings.model_copy(update={"choose": "best"})))
    assert not run_folder(job, 1e-7).exists(), "another choice may want it, and all of it"
    assert run_folder(job, 1e-2).exists()


def test_a_rate_is_given_up_by_all_processes_that_learn_it(
    make_job: MakeJob, scenes: Path, own_processes: None
) -> None:
    launcher = {"kind": "torchrun", "processes": 2, "stall_s": 120}
    found = search(with_dev(make_job(**CAREFUL, launcher=launcher), scenes), quiet)
    still, learns = sorted(found.runs, key=lambda run: run.learning_rate)
    assert (len(still.curve), len(learns.curve)) == (2, 6)
    assert "beyond doubt" in str(still.stopped)


def test_rates_side_by_side_give_what_they_give_one_after_another(
    make_job: MakeJob, own_processes: None
) -> None:
    rates = (1e-2, 1e30)
    wanted = search(make_job(learning_rates=rates), quiet)
    job = make_job(folder="apart", learning_rates=rates, launcher={"devices": ["cpu", "cpu"]})
    notes: list[tuple[str, int, int]] = []
    found = search(job, lambda *told: notes.append(told))
    for one, other in zip(found.runs, wanted.runs, strict=True):
        assert one.curve == other.curve
        assert all(torch.equal(v, best_weights(other)[k]) for k, v in best_weights(one).items())
    assert [(r.learning_rate, r.stopped) for r in found.failed] == [
        (r.learning_rate, r.stopped) for r in wanted.failed
    ]
    assert notes, "nothing was told"
    assert all(note.startswith("fine-tuning at ") and 0 < done <= total == 18 for note, done, total in notes)
    assert all((folder / "output.log").exists() for folder in job.folder.glob("lr-*"))


def test_settings_of_launchers_that_contradict_each_other_are_refused() -> None:
    def refused(match: str, **launcher: Any) -> None:
        with pytest.raises(ValueError, match=match):
            TrainingSettings.model_validate({"launcher": launcher})

    refused("local has devices", kind="local", processes=2)
    refused("devices is for kind local", kind="torchrun", devices=["cpu"])
    refused("wants address and port", kind="torchrun", nodes=2, address="a")
