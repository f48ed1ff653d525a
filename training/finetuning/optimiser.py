"""Steps over a network's parameters, and which of its layers learn in which way."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook, ParamSchedulerHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner

from mad_backend.errors import TrainingError
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings
from training.finetuning.ranks import BATCH_NORMS

SMALL_BATCH = 4
"""At this batch size or less, batch statistics are too noisy to be learnt (method.md section 6)."""
DROPPING = ("Dropout", "DropPath", "StochasticDepth", "DropBlock")
"""In the class names of what leaves out a part of a network at random, whichever library it is of."""


SECOND_MOMENT = 0.99
"""AdamW's second beta; the usual 0.999 remembers more steps than a fine-tuning has."""


class MixedPrecision(OptimWrapper):  # type: ignore[misc]
    """bfloat16 where it loses nothing, on every device; unlike fp16 its gradients need no scaling."""

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def build_optimiser(model: TorchModel, learning_rate: float, settings: TrainingSettings) -> OptimWrapper:
    """SGD (Sec. 4.1) or AdamW, the backbone at its own rate, or not learning at all where that is 0.

    Raises TrainingError for fp16 without a GPU, and for a network without a backbone where it shall have a rate.
    """
    groups, decay = _groups(model, learning_rate, settings.backbone_rate), settings.weight_decay
    optimiser: torch.optim.Optimizer
    if settings.optimizer == "adamw":
        betas = (settings.momentum, SECOND_MOMENT)
        optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, weight_decay=decay)
    else:
        optimiser = torch.optim.SGD(groups, lr=learning_rate, momentum=settings.momentum, weight_decay=decay)
    given: dict[str, Any] = {"optimizer": optimiser, "accumulative_counts": settings.accumulate}
    if settings.clip_norm is not None:
        given["clip_grad"] = {"max_norm": settings.clip_norm}
    if settings.precision == "fp32":
        return OptimWrapper(**given)
    if settings.precision == "bf16":
        return MixedPrecision(**given)
    if not torch.cuda.is_available():
        raise TrainingError(
            "training.precision fp16 is for GPUs, and there is none; write bf16 (slow on most CPUs) or fp32"
        )
    return AmpOptimWrapper(dtype="float16", **given)


def schedule(settings: TrainingSettings, batches: int) -> list[dict[str, Any]]:
    """For mmengine: rates fall as (1 - step / steps)^power over all epochs of `batches`; first they rise."""
    steps = settings.epochs * math.ceil(batches / settings.accumulate)
    # One more than there are, as mmengine counts: the last step shall learn something too.
    poly = {"type": "PolyLR", "power": settings.poly_power, "eta_min": 0.0, "begin": 0, "end": steps + 1}
    ramp = {
        "type": "LinearLR",
        "start_factor": 1 / (settings.warmup + 1),
        "begin": 0,
        "end": settings.warmup + 1,
    }
    return [{**part, "by_epoch": False} for part in ([ramp, poly] if settings.warmup else [poly])]


def _groups(model: TorchModel, rate: float, factor: float) -> list[dict[str, Any]]:
    if factor == 1:
        return [{"params": [p for p in model.module.parameters() if p.requires_grad]}]
    backbone = {id(parameter) for part in backbone_of(model) for parameter in part.parameters()}
    if factor == 0:
        for parameter in model.module.parameters():
            if id(parameter) in backbone:
                parameter.requires_grad_(False)
    learning = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if id(p) not in backbone], "lr": rate},
        {"params": [p for p in learning if id(p) in backbone], "lr": rate * factor},
    ]
    return [group for group in groups if group["params"]]


def backbone_of(model: TorchModel) -> list[torch.nn.Module]:
    """The part of a network that is not its head.

    What its library calls so: `backbone` (mmsegmentation, torchvision), `encoder` (segmentation-models-pytorch), the
    base model of transformers. Of any other network, all children but the last. Raises TrainingError for one layer.
    """
    module = model.module
    for name in (getattr(module, "base_model_prefix", ""), "backbone", "encoder"):
        found = getattr(module, name, None) if name else None
        if isinstance(found, torch.nn.Module):
            return [found]
    children = [child for child in module.children() if next(child.parameters(), None) is not None]
    if len(children) < 2:
        raise TrainingError(
            f'the target "{model.name}" has no backbone: no part of that name, and one layer in all; leave '
            "training.backbone_rate at 1"
        )
    return children[:-1]


class Modes(Hook):  # type: ignore[misc]
    """Keeps layers in inference mode that shall not learn statistics or drop anything, and steps within an epoch."""

    def __init__(self, model: TorchModel, settings: TrainingSettings) -> None:
        self._model = model
        self._settings = settings
        self._still: list[torch.nn.Module] = []

    def before_train(self, runner: Runner) -> None:
        # Only now: layers may have been put in others' place for several processes.
        settings, network = self._settings, self._model.module
        frozen = freezes_batch_norm(settings)
        backbone = backbone_of(self._model) if settings.backbone_rate == 0 else []
        still = {id(module) for part in backbone for module in part.modules()}
        for module in network.modules():
            is_frozen = frozen and isinstance(module, BATCH_NORMS)
            is_dropping = any(name in type(module).__name__ for name in DROPPING)
            if is_frozen or (is_dropping and not settings.dropout) or id(module) in still:
                self._still.append(module)

    def before_train_epoch(self, runner: Runner) -> None:
        # Counted anew, so that an epoch's last batches make a step and a resumed run has no gradients to restore.
        runner.optim_wrapper.initialize_count_status(runner.model, 0, len(runner.train_dataloader))
        runner.optim_wrapper.zero_grad()  # what an attempt that ran out of memory had summed up

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        for module in self._still:
            module.training = False


class StepSchedule(ParamSchedulerHook):  # type: ignore[misc]
    """Rates fall by optimiser steps; mmengine's own go by batches, of which several may make a step."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


def freezes_batch_norm(settings: TrainingSettings) -> bool:
    """True where batch norm keeps its statistics: as settings say, else in small batches."""
    frozen = settings.freeze_batch_norm
    return settings.batch_size <= SMALL_BATCH if frozen is None else frozen
