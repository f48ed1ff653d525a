"""One contract for every kind that can be trained."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mad_backend.core.labels import VOID
from mad_backend.core.records import PoolImage
from mad_backend.models.registry import TRAINABLE, load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.pool.images import decode_frame
from mad_backend.settings import ModelSettings
from tests.training.finetuning.conftest import GRID, SCENES, ModelOf, PlanOf
from training.finetuning.distillation import Distiller
from training.finetuning.loading import collate
from training.finetuning.progress import Progress
from training.finetuning.run import load_best, train
from training.finetuning.samples import Draw, Part, SampleDataset
from training.finetuning.segmentor import runnable
from training.finetuning.teachers import FrozenTeacher
from training.finetuning.transforms import build_transforms, own_ids

KINDS = (*sorted(TRAINABLE), "module")


class StopError(Exception):
    """Stands for whatever ends a run."""


def weights_of(model: TorchModel) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.module.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_every_remedy_changes_the_weights_and_a_stopped_one_ends_with_the_same(
    kind: str, model_of: ModelOf, plan_of: PlanOf, networks: dict[str, ModelSettings], tmp_path: Path
) -> None:
    plan = plan_of(
        epochs=2,
        ema=0.5,
        clip_norm=1.0,
        backbone_rate=0.5,
        class_weights="balanced",
        channels_last=True,
        interpolation=(0.5, 1.0),
        optimizer="adamw",
        warmup=1,
        distillation={"replay": 0.5, "pool": 0.5, "replay_labels": False, "mirror": True},
    )
    start, undisturbed = model_of(kind), model_of(kind)
    wanted = train(undisturbed, 1e-3, plan, tmp_path / "undisturbed")

    def stop_in_second(told: Progress) -> None:
        if told.step == 3:
            raise StopError

    with pytest.raises(StopError):
        train(model_of(kind), 1e-3, replace(plan, progress=stop_in_second), tmp_path / "stopped")
    resumed = model_of(kind)
    found = train(resumed, 1e-3, plan, tmp_path / "stopped")
    assert replace(found, folder=wanted.folder) == wanted
    assert weights_of(resumed) == weights_of(undisturbed)
    assert weights_of(resumed) != weights_of(start)

    chosen = model_of(kind)
    load_best(chosen, found)
    again = load_model(
        "again",
        networks[kind].model_copy(update={"path": chosen.save(tmp_path / "saved")}),
        SCENES,
        GRID,
        "cpu",
    )
    image = plan.failures[0].image
    frame = decode_frame(PoolImage("one", str(image)), image.read_bytes(), GRID)
    for one, two in zip(chosen.predict([frame]), again.predict([frame]), strict=True):
        assert one is not None
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_void_has_no_part_in_the_loss_and_a_teacher_that_agrees_adds_nothing(
    kind: str, model_of: ModelOf, plan_of: PlanOf
) -> None:
    model = model_of(kind)
    plan = plan_of(horizontal_flip=False, distillation={"replay": 1.0, "temperature": 3.0})
    distiller = Distiller(FrozenTeacher(model), plan.settings, align_corners=model.align_corners)
    network = runnable(model, plan.settings, None, distiller).eval()
    dataset = SampleDataset(plan.replay, GRID, own_ids(model), build_transforms(model, plan.settings))
    batch = network.data_preprocessor(
        collate([dataset[Draw(0)], dataset[Draw(1, 0, Part.REPLAY)]]), training=True
    )
    with torch.no_grad():
        plain = runnable(model, plan.settings).eval()(**batch, mode="loss")
    losses = network(**batch, mode="loss")
    for name, value in plain.items():
        torch.testing.assert_close(losses[name].detach(), value)
    assert float(losses["loss_distil_replay"].detach()) < 1e-3 * float(next(iter(plain.values())))

    for sample in batch["data_samples"]:
        sample.gt_sem_seg.data.fill_(VOID)
    own = {name: value for name, value in plain.items() if "loss" in name}
    losses = runnable(model, plan.settings).eval()(**batch, mode="loss")
    total = sum(losses[name].sum() for name in own)
    total.backward()  # type: ignore[union-attr]
    assert all(p.grad is None or not p.grad.any() for p in model.module.parameters())
