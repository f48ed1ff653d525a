"""Fine-tuning runs: reproducible, resumable after a kill, half old and half new, void ignored."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelSet
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.pool.truths import Truth
from mad_backend.settings import ModelSettings, TrainingSettings
from mad_backend.settings_file import load_label_set
from tests.training.conftest import CONFIGS, samples_of
from training.finetuning.dev import DevScore, DevSet
from training.finetuning.plan import RunPlan, RunResult
from training.finetuning.progress import Progress
from training.finetuning.run import load_best, train
from training.finetuning.samples import Draw, SampleDataset
from training.finetuning.segmentor import LogitsSegmentor
from training.finetuning.transforms import build_transforms, own_ids
from training.project import Project

GRID = Grid(64)
MakePlan = Callable[..., RunPlan]


@pytest.fixture(scope="module")
def labels() -> LabelSet:
    return load_label_set(CONFIGS / "label_sets" / "scenes.yaml")


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory: pytest.TempPathFactory, labels: LabelSet) -> Path:
    """A random MobileNetV2 with a DeepLab head, as narrow as the class allows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        define_missing_operators()
        from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation
    torch.manual_seed(0)
    names = dict(enumerate(labels.names))
    config = MobileNetV2Config(
        depth_multiplier=0.1,
        min_depth=8,
        output_stride=16,
        image_size=64,
        id2label=names,
        label2id={name: i for i, name in names.items()},
        semantic_loss_ignore_index=255,
    )
    folder = tmp_path_factory.mktemp("hf") / "mobilenet"
    MobileNetV2ForSemanticSegmentation(config).save_pretrained(folder, safe_serialization=True)
    return folder


def model_of(kind: str, scenes: Path, hf_folder: Path, labels: LabelSet) -> TorchModel:
    if kind == "hf":
        settings = ModelSettings(kind="hf", path=hf_folder, fit="keep")
    else:
        weights = CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors"
        settings = ModelSettings(
            kind="mmseg", path=weights, config=scenes / "models" / "target.py", fit="keep"
        )
    model = load_model("target", settings, labels, GRID)
    assert isinstance(model, TorchModel)
    return model


@pytest.fixture(params=["mmseg", "hf"])
def new_model(
    request: pytest.FixtureRequest, scenes: Path, hf_folder: Path, labels: LabelSet
) -> Callable[[], TorchModel]:
    """Loads the same small model afresh at each call."""
    return lambda: model_of(request.param, scenes, hf_folder, labels)


@pytest.fixture
def new_mmseg(scenes: Path, hf_folder: Path, labels: LabelSet) -> Callable[[], TorchModel]:
    return lambda: model_of("mmseg", scenes, hf_folder, labels)


@pytest.fixture
def make_plan(scenes: Path, finished: Project) -> MakePlan:
    def make(count: int = 4, **settings: object) -> RunPlan:
        own = {"learning_rates": (1e-3,), "epochs": 3, "batch_size": 2, "workers": 0}
        fields = {"recipe": "paper", **own, **settings}
        return RunPlan(
            samples_of(scenes / "pool", "hidden_masks", count),
            samples_of(scenes / "s0", "masks", 6),
            GRID,
            TrainingSettings.model_validate(fields),
            7,
            DevSet(samples_of(scenes / "t0", "masks", 4), (), GRID, 8).score,
            lambda progress: None,
        )

    return make


def weights_of(model: TorchModel) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.module.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


class StopError(Exception):
    """Stands for whatever ends a run."""


def test_equal_seeds_give_equal_weights_bit_by_bit(
    new_model: Callable[[], TorchModel], make_plan: MakePlan, tmp_path: Path
) -> None:
    def trained(name: str, plan: RunPlan) -> tuple[str, RunResult]:
        model = new_model()
        return weights_of(model), (train(model, 1e-3, plan, tmp_path / name), model)  # type: ignore[return-value]

    plan = make_plan(epochs=1)
    start, (first, one) = trained("one", plan)  # type: ignore[misc]
    again, (second, two) = trained("two", plan)  # type: ignore[misc]
    _, (_, other) = trained("other", replace(plan, seed=8))  # type: ignore[misc]
    assert start == again
    assert first.curve == second.curve
    assert weights_of(one) == weights_of(two)
    assert weights_of(one) != start
    assert weights_of(one) != weights_of(other)


def test_a_run_stopped_in_its_second_epoch_goes_on_to_the_same_weights(
    new_model: Callable[[], TorchModel], make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(epochs=3)
    undisturbed = new_model()
    wanted = train(undisturbed, 1e-3, plan, tmp_path / "undisturbed")

    steps: list[tuple[int, int]] = []

    def stop_in_second(told: Progress) -> None:
        steps.append((told.step, told.steps))
        if told.step == 6:
            raise StopError

    with pytest.raises(StopError):
        train(new_model(), 1e-3, replace(plan, progress=stop_in_second), tmp_path / "stopped")
    assert steps == [(n, 12) for n in range(1, 7)]
    assert not (tmp_path / "stopped" / "result.json").exists()

    steps.clear()
    resumed = new_model()
    found = train(
        resumed,
        1e-3,
        replace(plan, progress=lambda told: steps.append((told.step, told.steps))),
        tmp_path / "stopped",
    )
    assert steps == [(n, 12) for n in range(5, 13)], "the first epoch is not repeated"
    assert found.curve == wanted.curve
    assert weights_of(resumed) == weights_of(undisturbed)


CHILD = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from training.project import Project
from training.finetuning.dev import DevSet
from training.finetuning.plan import RunPlan
from training.finetuning.run import train
from tests.training.finetuning.test_run import GRID, samples_of
from mad_backend.settings import TrainingSettings
config, scenes, folder = map(Path, sys.argv[1:])
project = Project.open(config)
settings = TrainingSettings(recipe="paper", learning_rates=(1e-3,), epochs=3, batch_size=2)
plan = RunPlan(samples_of(scenes / "pool", "hidden_masks", 4), samples_of(scenes / "s0", "masks", 6), GRID,
    settings, 7, DevSet(samples_of(scenes / "t0", "masks", 4), (), GRID, 8).score,
    lambda progress: print(progress.step, flush=True))
train(project.target(project.store.versions.get("scenes@0")), 1e-3, plan, folder)
"""


def test_a_run_killed_in_its_second_epoch_goes_on_to_the_same_weights(
    new_mmseg: Callable[[], TorchModel],
    make_plan: MakePlan,
    finished: Project,
    scenes: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(finished.config), str(scenes), str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=CONFIGS.parent
    ) as child:
        assert child.stdout
        for line in child.stdout:
            if line == "6\n":
                os.kill(child.pid, signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert (folder / "last.pt").exists()
    assert not (folder / "result.json").exists()
    undisturbed, resumed = new_mmseg(), new_mmseg()
    wanted = train(undisturbed, 1e-3, make_plan(), tmp_path / "undisturbed")
    assert train(resumed, 1e-3, make_plan(), folder).curve == wanted.curve
    assert weights_of(resumed) == weights_of(undisturbed)


def test_a_finished_run_is_not_repeated(
    new_mmseg: Callable[[], TorchModel], make_plan: MakePlan, tmp_path: Path
) -> None:
    first = train(new_mmseg(), 1e-3, make_plan(epochs=1), tmp_path / "run")
    began = time.time_ns()

    def never(_progress: Progress) -> None:
        raise AssertionError("trained again")

    again = train(new_mmseg(), 1e-3, replace(make_plan(epochs=1), progress=never), tmp_path / "run")
    assert again == first
    assert (tmp_path / "run" / "best.pt").stat().st_mtime_ns < began


def test_the_best_epoch_is_kept_and_of_equal_ones_the_first(
    new_mmseg: Callable[[], TorchModel], make_plan: MakePlan, tmp_path: Path
) -> None:
    marks = iter([0.3, 0.4, 0.6, 0.6, 0.5])  # of the start, then of each epoch
    after_epoch: list[str] = []

    def measure(model: TorchModel) -> DevScore:
        after_epoch.append(weights_of(model))
        return DevScore(next(marks))

    plan = replace(make_plan(epochs=4), measure=measure)
    result = train(new_mmseg(), 1e-3, plan, tmp_path / "run")
    assert (result.best.epoch, result.best.dev, result.start) == (2, 0.6, DevScore(0.3))
    best = new_mmseg()
    load_best(best, result)
    assert weights_of(best) == after_epoch[2]
    assert len(set(after_epoch)) == 5


def test_the_loss_falls_on_a_tiny_problem(
    new_model: Callable[[], TorchModel], make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = replace(
        make_plan(count=2, epochs=10, horizontal_flip=False, freeze_batch_norm=False),
        measure=lambda model: DevScore(0.0),
    )
    plan = replace(plan, replay=plan.failures)
    curve = train(new_model(), 1e-2, plan, tmp_path / "run").curve
    assert curve[-1].loss < 0.8 * curve[0].loss
    assert min(r.loss for r in curve[5:]) < min(r.loss for r in curve[:2])


@pytest.mark.parametrize(
    ("frozen", "batch_size", "learnt"), [(None, 2, False), (None, 8, True), (False, 2, True)]
)
def test_batch_statistics_are_learnt_only_from_large_batches(
    new_model: Callable[[], TorchModel],
    make_plan: MakePlan,
    tmp_path: Path,
    frozen: bool | None,
    batch_size: int,
    learnt: bool,
) -> None:
    model = new_model()

    def statistics() -> list[torch.Tensor]:
        state = model.module.state_dict()
        return [
            value.clone() for name, value in state.items() if name.endswith(("running_mean", "running_var"))
        ]

    before = statistics()
    assert before
    train(model, 1e-3, make_plan(epochs=1, batch_size=batch_size, freeze_batch_norm=frozen), tmp_path / "run")
    same = all(torch.equal(a, b) for a, b in zip(before, statistics(), strict=True))
    assert same is not learnt


def test_void_pixels_have_no_part_in_the_loss(scenes: Path, hf_folder: Path, labels: LabelSet) -> None:
    model = model_of("hf", scenes, hf_folder, labels)
    segmentor = LogitsSegmentor(model, TrainingSettings(recipe="paper"))
    sample = samples_of(scenes / "s0", "masks", 1)
    item = SampleDataset(sample, GRID, own_ids(model), build_transforms(model, TrainingSettings()))[Draw(0)]
    inputs = torch.randn(1, 3, 48, 64)
    truth = item["data_samples"].gt_sem_seg.data
    truth[:, 10:30] = VOID
    with torch.no_grad():
        loss = segmentor(inputs, [item["data_samples"]], mode="loss")["loss_ce"]
        logits = torch.nn.functional.interpolate(
            model.logits(inputs), size=(48, 64), mode="bilinear", align_corners=False
        )
    chances = torch.log_softmax(logits, 1)[0].numpy()
    map_ = truth[0].numpy()
    rows, columns = np.nonzero(map_ != VOID)
    by_hand = -chances[map_[rows, columns], rows, columns].mean()
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)


def test_painting_over_void_changes_no_weight_of_an_mmseg_target(
    new_mmseg: Callable[[], TorchModel], make_plan: MakePlan, tmp_path: Path
) -> None:
    """Two images that differ in nothing but the class of pixels that both maps call void."""
    plan = make_plan(count=2, epochs=1, horizontal_flip=False)
    trained = []
    for ignored in (VOID, 200):
        folder = tmp_path / str(ignored)
        folder.mkdir()
        failures = []
        for sample in plan.failures:
            mask = np.array(Image.open(sample.truth.path))
            mask[50:120] = ignored
            Image.fromarray(mask).save(folder / sample.truth.path.name)
            failures.append(replace(sample, truth=Truth(folder / sample.truth.path.name)))
        model = new_mmseg()
        train(model, 1e-3, replace(plan, failures=failures), folder / "run")
        trained.append(weights_of(model))
    assert trained[0] == trained[1], "an id that the label set does not have is void"


def test_the_chosen_rate_is_the_best_on_dev_and_is_told_beside_the_weights(finished: Project) -> None:
    meta = json.loads((finished.settings.workspace / "checkpoints" / "scenes@1" / "meta.json").read_text())
    curves = {run["learning_rate"]: run["curve"] for run in meta["runs"]}
    assert set(curves) == {1e-3, 3e-3}
    assert all(len(curve) == 2 for curve in curves.values())
    best = max(epoch["dev"] for curve in curves.values() for epoch in curve)
    assert meta["dev_miou"] == best
    assert curves[meta["learning_rate"]][meta["epoch"] - 1]["dev"] == best
    assert meta["started_from"] == "scenes@0"
    assert sorted(meta["failures"]) == sorted(f.image_id for f in finished.store.choices.failures(1))
