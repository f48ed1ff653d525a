"""What a run keeps while it trains: its last epoch and its best one; and what ends it before its time."""

import logging
import math
import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mad_backend.models.torch_model import TorchModel
from training.finetuning.averaging import RunningAverage
from training.finetuning.dev import DevScore
from training.finetuning.files import save_state, write_json
from training.finetuning.plan import EpochRecord, GivenUp, RunPlan
from training.finetuning.progress import Progress
from training.finetuning.ranks import all_finite, from_first, rank
from training.finetuning.samples import ReplaySampler

log = logging.getLogger(__name__)

LAST, BEST = "last.pt", "best.pt"
CURVE = "curve.json"
"""Every finished epoch, for whoever wants to look while the run goes on."""


class DivergedError(Exception):
    """Raised when a loss or a weight is no longer a number: this learning rate is too high for the network."""


class TrainingState(Hook):  # type: ignore[misc]
    """Loads the start or the last finished epoch, seeds every epoch, measures it, and saves it.

    Where weights are averaged over steps, the averages are what is measured and kept. `start_score` is the dev score of
    the weights that the run began with.

    Of several processes that train together the first measures and saves; the others wait for it. Raises DivergedError
    at the first loss that is not finite, and at the end of an epoch whose weights are not: what is measured and saved
    always is. (A gradient that is not finite makes such weights; with fp16 its step is skipped and nothing is amiss.)

    A checkpoint is a file of tensors and plain numbers, read back with weights_only: mmengine's own checkpoints
    hold pickled objects.
    """

    def __init__(
        self,
        model: TorchModel,
        learning_rate: float,
        plan: RunPlan,
        sampler: ReplaySampler,
        folder: Path,
        start: dict[str, torch.Tensor],
    ) -> None:
        self._model = model
        self._learning_rate = learning_rate
        self._plan = plan
        self._sampler = sampler
        self._folder = folder
        self._start = start
        self._losses: list[float] = []
        self._average: RunningAverage | None = None
        self.start_score: DevScore | None = None
        self.curve: list[EpochRecord] = []
        self.given_up: GivenUp | None = None

    def before_train(self, runner: Runner) -> None:
        # Only now: the Runner initialises weights afresh just before this.
        module = self._model.module
        module.load_state_dict(self._start)
        momentum = self._plan.settings.ema
        self._average = None if momentum is None else RunningAverage(module, momentum)
        last = self._folder / LAST
        if not last.exists():
            self.start_score = self._score()
            return
        saved = torch.load(last, map_location="cpu", weights_only=True)
        module.load_state_dict(saved["model"])
        if self._average:
            self._average.weights = saved["average"]
        runner.optim_wrapper.load_state_dict(saved["optimizer"])
        for scheduler, kept in zip(runner.param_schedulers, saved["schedulers"], strict=True):
            scheduler.load_state_dict(kept)
        runner.train_loop._epoch = saved["epoch"]  # noqa: SLF001 - as mmengine's own resume does
        runner.train_loop._iter = saved["iter"]  # noqa: SLF001
        self.curve = [EpochRecord(**record) for record in saved["curve"]]
        self.start_score = DevScore(*saved["start_score"])
        given_up = saved.get("given_up")
        self.given_up = GivenUp(**given_up) if given_up else None
        log.info("resumed after epoch %d of %d", saved["epoch"], self._plan.settings.epochs)
        self._stop_if_stale(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        self._sampler.epoch = runner.epoch
        self._losses = []
        seed = (self._plan.seed * 100_003 + runner.epoch) % 2**31
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - mmcv's transforms draw from numpy's global generator
        torch.manual_seed(seed)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loss = float(outputs["loss"].detach())
        if not math.isfinite(loss):
            raise DivergedError(f"a loss of {loss} in epoch {runner.epoch + 1}, step {batch_idx + 1}")
        self._losses.append(loss)
        if self._average and runner.optim_wrapper.should_update():
            self._average.update(self._model.module)
        last, best = (self.curve[-1].dev, best_of(self.curve)) if self.curve else (None, None)
        self._plan.progress(
            Progress(
                learning_rate=self._learning_rate,
                epoch=runner.epoch + 1,
                epochs=self._plan.settings.epochs,
                step=runner.iter + 1,
                steps=runner.train_loop.max_iters,
                loss=loss,
                dev=last,
                best=best.dev if best else None,
            )
        )

    def after_train_epoch(self, runner: Runner) -> None:
        if not all_finite(self._model.module.state_dict().values()):
            raise DivergedError(f"weights that are no numbers at the end of epoch {runner.epoch + 1}")
        with self._average.applied(self._model.module) if self._average else nullcontext():
            self._measure(runner.epoch + 1)
        record = self.curve[-1]
        self._stop_if_stale(runner)
        if rank() > 0:
            return
        log.info(
            "at %g, epoch %d: loss %.4f, dev mIoU %.4f",
            self._learning_rate,
            record.epoch,
            record.loss,
            record.dev,
        )
        saved = {
            "model": self._model.module.state_dict(),
            "optimizer": runner.optim_wrapper.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
            "epoch": record.epoch,
            "iter": runner.iter,
            "curve": [asdict(r) for r in self.curve],
            "start_score": [self.start_score.benchmark, self.start_score.failures]
            if self.start_score
            else None,
            "given_up": asdict(self.given_up) if self.given_up else None,
            **({"average": self._average.weights} if self._average else {}),
        }
        save_state(self._folder / LAST, saved)
        write_json(self._folder / CURVE, saved["curve"])

    def _measure(self, epoch: int) -> None:
        """Adds the weights as they are now to the curve, and keeps them if they are the best."""
        score = self._score()
        loss = float(np.mean(self._losses))
        best = best_of(self.curve)
        self.curve.append(EpochRecord(epoch, loss, score.value, score.benchmark, score.failures))
        if rank() == 0 and best_of(self.curve) is not best:
            score.write(self._folder)
            save_state(self._folder / BEST, {"model": self._model.module.state_dict()})
        found = self._plan.hopeless(epoch, score) if self._plan.hopeless else None
        # The first of several processes alone knows; the others have to stop with it.
        (beside,) = from_first([found.beside if found else math.nan], self._model.device)
        if not math.isnan(beside):
            self.given_up = found or GivenUp(beside, f"it is worse than the one at {beside:g}")

    def _score(self) -> DevScore:
        """The same in every process, as the first one measured it."""
        told = [0.0, math.nan]
        matrices = None
        if rank() == 0:
            score = self._plan.measure(self._model)
            told = [score.benchmark, math.nan if score.failures is None else score.failures]
            matrices = score.matrices
        benchmark, failures = from_first(told, self._model.device)
        return DevScore(benchmark, None if math.isnan(failures) else failures, matrices)

    def _stop_if_stale(self, runner: Runner) -> None:
        """Ends the run after the last epoch when it is hopeless, or `patience` epochs brought none that is better."""
        if self.given_up:
            log.info("at %g: the run is ended, as %s", self._learning_rate, self.given_up.reason)
            runner.train_loop.stop_training = True
        best, patience = best_of(self.curve), self._plan.settings.patience
        if best and patience is not None and self.curve[-1].epoch - best.epoch >= patience:
            log.info("at %g: no better epoch since %d, which ends the run", self._learning_rate, best.epoch)
            runner.train_loop.stop_training = True


def best_of(curve: Sequence[EpochRecord]) -> EpochRecord | None:
    """The first of the epochs with the highest dev score that is a number."""
    return max((r for r in curve if math.isfinite(r.dev)), key=lambda record: record.dev, default=None)
