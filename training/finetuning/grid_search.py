"""Every learning rate of the grid, and the best of them (Sec. 4.1: "grid search")."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from mad_backend.errors import TrainingError
from training.finetuning.checkpoints import BEST, LAST
from training.finetuning.choice import choose
from training.finetuning.files import check_room
from training.finetuning.job import ANSWERS, Job
from training.finetuning.launchers import devices_of, launch
from training.finetuning.plan import FailedRun, RunResult
from training.finetuning.progress import Meter, Report
from training.finetuning.rates import run_folder
from training.finetuning.results import read_result

__all__ = ["Report", "SearchResult", "forget_weights", "search"]


@dataclass(frozen=True)
class SearchResult:
    """All usable runs, and the one of them whose best epoch is the next version: see `choose`.

    `failed` are those that ended before an epoch could be measured.
    """

    runs: tuple[RunResult, ...]
    best: RunResult
    failed: tuple[FailedRun, ...] = ()


def search(job: Job, report: Report) -> SearchResult:
    """Trains at every learning rate, wherever settings say; what is finished is not repeated.

    Raises StoreError when there is no room for what it writes, and TrainingError when no rate gives a usable epoch.
    """
    rates = job.settings.learning_rates
    pending = [rate for rate in rates if read_result(run_folder(job, rate), rate) is None]
    if pending:
        job.folder.mkdir(parents=True, exist_ok=True)
        check_room(job.folder, needed_bytes(job, len(pending)), f"fine-tuning to {job.version}")
        meter = Meter(report, {rate: job.settings.at(rate).epochs for rate in rates})
        for rate in set(rates) - set(pending):
            meter.finish(rate)
        launch(job, pending, meter)
    return _chosen(job)


def forget_weights(job: Job) -> None:
    """Deletes what is of no use once the best weights are exported; learning curves stay."""
    shutil.rmtree(job.folder / ANSWERS, ignore_errors=True)
    for rate in job.settings.learning_rates:
        for name in (BEST, LAST):
            (run_folder(job, rate) / name).unlink(missing_ok=True)


def needed_bytes(job: Job, runs: int) -> int:
    """What so many runs and the exported version take at most, beside what is there of them already.

    Each run keeps its best epoch; while it trains also the last one with the optimiser's momentum, twice while it is
    replaced, and with `ema` the averaged weights.
    """
    module = job.start("cpu").module
    weights = _bytes(module.state_dict().values())
    momentum = _bytes(module.parameters()) * (2 if job.settings.optimizer == "adamw" else 1)
    last = weights + momentum + (weights if job.settings.ema else 0)
    at_once = min(runs, max(1, len(devices_of(job))))
    present = sum(path.stat().st_size for path in job.folder.glob("*/*.pt"))
    return max(0, (runs + 1) * weights + 2 * at_once * last - present) + SLACK_BYTES


SLACK_BYTES = 20_000_000
"""Logs, curves, and the headers of files."""


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


def _chosen(job: Job) -> SearchResult:
    found = [read_result(run_folder(job, rate), rate) for rate in job.settings.learning_rates]
    runs = tuple(run for run in found if isinstance(run, RunResult))
    failed = tuple(run for run in found if isinstance(run, FailedRun))
    if not runs:
        reasons = "; ".join(f"{run.learning_rate:g}: {run.stopped}" for run in failed)
        raise TrainingError(
            f"no learning rate gave a usable epoch ({reasons}); lower training.learning_rates, set training.clip_norm, "
            "or look for broken label maps among the images"
        )
    return SearchResult(runs, choose(job, runs), failed)
