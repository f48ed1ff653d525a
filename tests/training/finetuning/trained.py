"""Small runs, and what is looked at in them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import ModelSettings
from tests.training.finetuning.conftest import GRID
from training.finetuning.averaging import copied
from training.finetuning.distillation import Distiller
from training.finetuning.loading import collate
from training.finetuning.plan import RunPlan, RunResult
from training.finetuning.progress import Progress
from training.finetuning.run import train
from training.finetuning.samples import Draw, SampleDataset, Unlabelled
from training.finetuning.segmentor import runnable
from training.finetuning.teachers import Teacher
from training.finetuning.transforms import build_transforms, own_ids

Weights = dict[str, torch.Tensor]
Networks = dict[str, ModelSettings]


def run(model: TorchModel, plan: RunPlan, folder: Path, rate: float = 1e-2) -> RunResult:
    result = train(model, rate, plan, folder)
    assert isinstance(result, RunResult)
    return result


def weights(model: TorchModel) -> Weights:
    return copied(model.module.state_dict())


def same(one: Weights, two: Weights) -> bool:
    return all(torch.equal(value, two[name]) for name, value in one.items())


def watching(plan: RunPlan, look: Callable[[], None]) -> RunPlan:
    """The plan, whose every step is followed by a look."""

    def progress(told: Progress) -> None:
        look()

    return replace(plan, progress=progress)


def batch_of(model: TorchModel, network: Any, plan: RunPlan, draws: list[Draw]) -> Any:
    samples = [*plan.failures, *plan.replay, *map(Unlabelled, plan.unlabelled)]
    dataset = SampleDataset(samples, GRID, own_ids(model), build_transforms(model, plan.settings))
    return network.data_preprocessor(collate([dataset[draw] for draw in draws]), training=True)


def distilled(model: TorchModel, plan: RunPlan, teacher: Teacher) -> Any:
    distiller = Distiller(teacher, plan.settings, align_corners=model.align_corners)
    return runnable(model, plan.settings, None, distiller)


def distance(model: TorchModel, other: TorchModel) -> float:
    inputs = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((model.module.eval()(inputs) - other.module.eval()(inputs)).abs().mean())
