"""A new version is held to what a teacher answers."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from mad_backend.errors import TrainingError
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import IMAGENET_MEAN, IMAGENET_STD, TorchModel
from tests.training.finetuning.conftest import GRID, SCENES, ModelOf, PlanOf
from tests.training.finetuning.trained import Networks, batch_of, distance, distilled, run
from training.finetuning.samples import Draw, Part
from training.finetuning.segmentor import runnable
from training.finetuning.teachers import CompetingTeacher, FrozenTeacher, Points, teacher_of


def test_a_heavy_teacher_keeps_the_new_version_at_the_old_one_s_answers(
    model_of: ModelOf, plan_of: PlanOf, tmp_path: Path
) -> None:
    moved = []
    for name, distillation in (
        ("free", {}),
        ("replay", {"replay": 1e3}),
        ("pool", {"pool": 1e3, "images": 2}),
    ):
        model = model_of("plain")
        plan = plan_of(epochs=5, clip_norm=1.0, distillation=distillation)
        run(model, plan, tmp_path / name, rate=5e-2)
        moved.append(distance(model, model_of("plain")))
    assert moved[0] > 0.1
    assert moved[1] < moved[0] / 3
    assert moved[2] < moved[0] / 3


def test_an_mmseg_target_answers_once_for_its_own_losses_and_the_teacher_s(
    model_of: ModelOf, plan_of: PlanOf
) -> None:
    model = model_of("mmseg")
    plan = plan_of(distillation={"replay": 1.0, "pool": 1.0})
    network = distilled(model, plan, FrozenTeacher(model))
    sizes: list[int] = []
    model.module.backbone.register_forward_hook(lambda _m, given, _a: sizes.append(len(given[0])))
    draws = [Draw(0), Draw(2, 0, Part.REPLAY), Draw(6, 0, Part.POOL)]
    losses = network.eval()(**batch_of(model, network, plan, draws), mode="loss")
    assert sizes == [2, 1], "labelled images once, the pool's once"
    assert {"decode.loss_ce", "aux_0.loss_ce", "loss_distil_replay", "loss_distil_pool"} <= set(losses)
    assert float(losses["loss_distil_pool"].detach()) < 1e-4

    alone = plan_of(distillation={"replay": 1.0, "replay_labels": False, "labels": 0.5})
    halved = distilled(model, alone, FrozenTeacher(model)).eval()
    batch = batch_of(model, network, plan, draws)
    of_s = {"inputs": batch["inputs"][:1], "data_samples": batch["data_samples"][:1]}
    wanted = model.module(**of_s, mode="loss")["decode.loss_ce"]
    torch.testing.assert_close(halved(**batch, mode="loss")["decode.loss_ce"], wanted * 0.5)


def test_padding_has_no_part_in_the_teacher_s_loss(model_of: ModelOf, plan_of: PlanOf) -> None:
    """The teacher's answers differ from the student's below the image only, on the canvas."""
    model = model_of("torchvision")
    plan = plan_of(horizontal_flip=False, distillation={"replay": 2.0, "temperature": 1.0})

    class Other:
        def answers(self, inputs: torch.Tensor, points: Points, *, mirrored: bool = False) -> torch.Tensor:
            with torch.no_grad():
                found = model.logits(inputs).clone()
            rows = round(48 * found.shape[2] / 64)
            found[:, 0, rows:] += 5
            return found

    network = distilled(model, plan, Other()).eval()
    batch = batch_of(model, network, plan, [Draw(0), Draw(2, 0, Part.REPLAY)])
    assert batch["inputs"].shape[-2:] == (64, 64)
    assert batch["data_samples"][1].metainfo["padding_size"][3] == 16
    assert float(network(**batch, mode="loss")["loss_distil_replay"].detach()) < 1e-6


def test_label_maps_of_s0_have_no_part_where_only_the_teacher_s_answers_are_learnt(
    model_of: ModelOf, plan_of: PlanOf
) -> None:
    model = model_of("plain")
    settings = {"replay": 1.0, "failures": 0.5, "replay_labels": False, "labels": 0.25}
    plan = plan_of(horizontal_flip=False, loss_stride=2, distillation=settings)
    network = distilled(model, plan, FrozenTeacher(model)).eval()
    batch = batch_of(model, network, plan, [Draw(0), Draw(2, 0, Part.REPLAY)])
    found = network(**batch, mode="loss")
    alone = {"inputs": batch["inputs"][:1], "data_samples": batch["data_samples"][:1]}
    wanted = runnable(model, plan.settings).eval()(**alone, mode="loss")["loss_ce"]
    torch.testing.assert_close(found["loss_ce"], wanted * 0.25)
    assert set(found) == {"loss_ce", "loss_distil_failures", "loss_distil_replay"}
    assert network.loss_counts(batch["data_samples"])["loss_ce"] == 24 * 32
    with pytest.raises(ValidationError, match="give replay a weight"):
        plan_of(distillation={"pool": 1.0, "replay_labels": False})


def test_competing_models_teach_in_the_student_s_outputs_and_in_a_mirror(networks: Networks) -> None:
    """A twin with its outputs in another order and another scale of pixels."""
    names = SCENES.names
    student = load_model("target", networks["plain"], SCENES, GRID, "cpu")
    turned = networks["plain"].model_copy(
        update={
            "own_classes": tuple(reversed(names)),
            "std": tuple(2 * value for value in IMAGENET_STD),
            "mean": (1.0, 2.0, 3.0),
        }
    )
    other = load_model("other", turned, SCENES, GRID, "cpu")
    assert isinstance(student, TorchModel)
    assert isinstance(other, TorchModel)
    inputs = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    points = Points((48, 64), (24, 32), 3)

    def by_hand(model: TorchModel, batch: torch.Tensor) -> torch.Tensor:
        full = functional.interpolate(model.logits(batch), size=(48, 64), mode="bilinear")
        return full.softmax(1)[:, :, ::3, ::3]

    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (inputs * std + mean - torch.tensor([1.0, 2.0, 3.0])[:, None, None]) / (2 * std)
    with torch.no_grad():
        own, theirs = by_hand(student, inputs), by_hand(other, pixels).flip(1)
        found = CompetingTeacher(other, student).answers(inputs, points)
        torch.testing.assert_close(found.exp(), theirs, rtol=1e-3, atol=1e-5)
        mean_of_two = teacher_of(student, [other], mirror=False).answers(inputs, points)
        torch.testing.assert_close(mean_of_two.exp(), (own + theirs) / 2, rtol=1e-3, atol=1e-5)
        mirrored = teacher_of(student, [], mirror=True)
        own_points = Points((48, 64), (24, 32))
        plain, turned_back = (mirrored.answers(batch, own_points) for batch in (inputs, inputs.flip(-1)))
        torch.testing.assert_close(turned_back.flip(-1), plain, rtol=1e-3, atol=1e-4)

    fewer = turned.model_copy(update={"classes": {names[3]: "ignore"}})
    blind = load_model("blind", fewer, SCENES, GRID, "cpu")
    assert isinstance(blind, TorchModel)
    with pytest.raises(
        TrainingError, match=f'"blind" cannot teach the target: it has no output for {names[3]}'
    ):
        CompetingTeacher(blind, student)
