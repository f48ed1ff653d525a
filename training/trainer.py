"""One fine-tuning run at one learning rate, by mmengine's Runner, for mmseg and hf targets alike (Sec. 4.1)."""

import json
import logging
import os
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mad_backend.core.grid import Grid
from mad_backend.models.hf_model import HfModel
from mad_backend.models.mmseg_model import MmsegModel
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings
from training.dataset import ReplaySampler, Sample, SampleDataset
from training.trainable import HfSegmentor, build_transforms, own_ids

log = logging.getLogger(__name__)

BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
SMALL_BATCH = 4
"""At this batch size or less, batch statistics are too noisy to be learnt (method.md section 6)."""


@dataclass(frozen=True)
class EpochRecord:
    """One point of the learning curve; `dev_miou` is the dataset mIoU on the dev part of T(0)."""

    epoch: int
    loss: float
    dev_miou: float


@dataclass(frozen=True)
class RunResult:
    """A finished run: its learning curve, its best epoch, and where that epoch's weights lie."""

    learning_rate: float
    best_epoch: int
    best_miou: float
    curve: tuple[EpochRecord, ...]
    folder: Path


@dataclass(frozen=True)
class RunPlan:
    """What one run needs beside the model; `progress` is called with (epoch, steps done, steps in all)."""

    failures: Sequence[Sample]
    replay: Sequence[Sample]
    grid: Grid
    settings: TrainingSettings
    seed: int
    measure: Callable[[TorchModel], float]
    progress: Callable[[int, int, int], None]


def train(model: TorchModel, learning_rate: float, plan: RunPlan, folder: Path) -> RunResult:
    """Trains `model` in place and keeps its best epoch under `folder`; goes on from the last finished epoch.

    A run that was finished before is not repeated. Deterministic by `plan.seed` on one device.
    """
    finished = folder / "result.json"
    if finished.exists():
        return _read_result(finished, learning_rate, folder)
    folder.mkdir(parents=True, exist_ok=True)
    sampler = ReplaySampler(len(plan.failures), len(plan.replay), plan.settings.batch_size, plan.seed)
    dataset = SampleDataset(
        [*plan.failures, *plan.replay], plan.grid, own_ids(model), build_transforms(model, plan.settings)
    )
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=sampler, num_workers=0, collate_fn=_collate)  # type: ignore[arg-type]
    state = TrainingState(model, plan, sampler, folder)
    _build_runner(model, learning_rate, plan, loader, state, folder).train()
    best = max(state.curve, key=lambda record: record.dev_miou)
    result = RunResult(learning_rate, best.epoch, best.dev_miou, tuple(state.curve), folder)
    write_json(finished, {"curve": [asdict(record) for record in state.curve]})
    return result


class TrainingState(Hook):  # type: ignore[misc]
    """Loads the start or the last finished epoch, seeds every epoch, measures it, and saves it.

    A checkpoint is a file of tensors and plain numbers, read back with weights_only: mmengine's own checkpoints
    hold pickled objects.
    """

    def __init__(self, model: TorchModel, plan: RunPlan, sampler: ReplaySampler, folder: Path) -> None:
        self._model = model
        self._plan = plan
        self._sampler = sampler
        self._folder = folder
        self._start = {name: value.clone() for name, value in model.module.state_dict().items()}
        self._losses: list[float] = []
        self.curve: list[EpochRecord] = []
        frozen = plan.settings.freeze_batch_norm
        self._freeze = plan.settings.batch_size <= SMALL_BATCH if frozen is None else frozen

    def before_train(self, runner: Runner) -> None:
        # Only now: the Runner initialises weights afresh just before this.
        self._model.module.load_state_dict(self._start)
        last = self._folder / "last.pt"
        if not last.exists():
            return
        saved = torch.load(last, map_location="cpu", weights_only=True)
        self._model.module.load_state_dict(saved["model"])
        runner.optim_wrapper.optimizer.load_state_dict(saved["optimizer"])
        for scheduler, kept in zip(runner.param_schedulers, saved["schedulers"], strict=True):
            scheduler.load_state_dict(kept)
        runner.train_loop._epoch = saved["epoch"]  # noqa: SLF001 - as mmengine's own resume does
        runner.train_loop._iter = saved["iter"]  # noqa: SLF001
        self.curve = [EpochRecord(**record) for record in saved["curve"]]
        log.info("resumed after epoch %d of %d", saved["epoch"], self._plan.settings.epochs)

    def before_train_epoch(self, runner: Runner) -> None:
        self._sampler.epoch = runner.epoch
        self._losses = []
        seed = (self._plan.seed * 100_003 + runner.epoch) % 2**31
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - mmcv's transforms draw from numpy's global generator
        torch.manual_seed(seed)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._freeze:
            for module in self._model.module.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._losses.append(float(outputs["loss"].detach()))
        self._plan.progress(runner.epoch + 1, runner.iter + 1, runner.train_loop.max_iters)

    def after_train_epoch(self, runner: Runner) -> None:
        miou = self._plan.measure(self._model)
        record = EpochRecord(runner.epoch + 1, float(np.mean(self._losses)), miou)
        if not self.curve or miou > max(r.dev_miou for r in self.curve):
            save_state(self._folder / "best.pt", {"model": self._model.module.state_dict()})
        self.curve.append(record)
        log.info("epoch %d: loss %.4f, dev mIoU %.4f", record.epoch, record.loss, miou)
        saved = {
            "model": self._model.module.state_dict(),
            "optimizer": runner.optim_wrapper.optimizer.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
            "epoch": record.epoch,
            "iter": runner.iter,
            "curve": [asdict(r) for r in self.curve],
        }
        save_state(self._folder / "last.pt", saved)


def load_best(model: TorchModel, result: RunResult) -> None:
    """Puts the best epoch's weights into `model`."""
    saved = torch.load(result.folder / "best.pt", map_location="cpu", weights_only=True)
    model.module.load_state_dict(saved["model"])


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain values under a temporary name and renames: never half a checkpoint."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name and renames."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2), encoding="utf-8")
    temporary.replace(path)


def _build_runner(
    model: TorchModel, learning_rate: float, plan: RunPlan, loader: Any, state: TrainingState, folder: Path
) -> Runner:
    settings = plan.settings
    silent = dict.fromkeys(("timer", "logger", "checkpoint", "sampler_seed"))
    return Runner(
        model=_runnable(model),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg={"by_epoch": True, "max_epochs": settings.epochs},
        optim_wrapper={
            "type": "OptimWrapper",
            "optimizer": {
                "type": "SGD",
                "lr": learning_rate,
                "momentum": settings.momentum,
                "weight_decay": settings.weight_decay,
            },
        },
        param_scheduler=[
            {
                "type": "PolyLR",
                "power": settings.poly_power,
                "eta_min": 0.0,
                "begin": 0,
                "end": settings.epochs * len(loader),
                "by_epoch": False,
            }
        ],
        default_hooks=silent,
        custom_hooks=[*_user_hooks(model), state],
        default_scope="mmseg",
        log_level="ERROR",
        randomness={"seed": plan.seed},
        experiment_name=f"{folder.parent.name}-{folder.name}-{uuid.uuid4().hex}",
    )


def _runnable(model: TorchModel) -> Any:
    """An mmengine BaseModel over the adapter's own module, so that training changes what `predict` uses."""
    if isinstance(model, MmsegModel):
        return model.module
    if isinstance(model, HfModel):
        return HfSegmentor(model)
    raise TypeError(f'model "{model.name}" of kind "{model.settings.kind}" cannot be trained')


def _user_hooks(model: TorchModel) -> list[Any]:
    return list(model.config.get("custom_hooks", [])) if isinstance(model, MmsegModel) else []


def _collate(batch: list[Any]) -> Any:
    from mmengine.dataset import pseudo_collate

    return pseudo_collate(batch)


def _read_result(path: Path, learning_rate: float, folder: Path) -> RunResult:
    curve = tuple(EpochRecord(**record) for record in json.loads(path.read_text(encoding="utf-8"))["curve"])
    best = max(curve, key=lambda record: record.dev_miou)
    return RunResult(learning_rate, best.epoch, best.dev_miou, curve, folder)
