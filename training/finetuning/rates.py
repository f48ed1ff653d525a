"""Runs at several learning rates one after another, in this process and those that train together with it."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from mad_backend.models.torch_model import TorchModel
from training.finetuning.choice import hopeless_beside
from training.finetuning.dev import DevScore
from training.finetuning.job import ANSWERS, Job
from training.finetuning.plan import RunPlan, RunResult
from training.finetuning.progress import Progress
from training.finetuning.ranks import rank
from training.finetuning.run import train


def run_folder(job: Job, learning_rate: float) -> Path:
    """Where the run at this rate keeps everything."""
    return job.folder / f"lr-{learning_rate:g}"


def train_rates(
    job: Job,
    rates: Iterable[float],
    progress: Callable[[Progress], None],
    finished: Callable[[float], None] | None = None,
    device: str | None = None,
) -> None:
    """Trains at each rate, on `device` in place of the target's own; `finished` is told of each that is over.

    A rate that is worse beyond doubt than those before it ends early, where the choice is careful (`by_risk`).
    """
    if job.settings.threads:
        # Sums over another number of threads round differently.
        torch.set_num_threads(job.settings.threads)
    measure = job.dev_set().score if rank() == 0 else _not_here
    teachers = job.load_teachers(device)
    earlier: list[RunResult] = []
    for rate in rates:
        settings = job.settings.at(rate)
        plan = RunPlan(
            job.failures,
            job.replay,
            job.grid,
            settings,
            job.seed,
            measure,
            progress,
            job.unlabelled,
            teachers,
            job.answers or job.folder / ANSWERS,
            hopeless_beside(job, earlier, settings.epochs) if rank() == 0 else None,
        )
        result = train(job.start(device), rate, plan, run_folder(job, rate))
        if isinstance(result, RunResult):
            earlier.append(result)
        if finished:
            finished(rate)


def _not_here(_model: TorchModel) -> DevScore:
    raise AssertionError("the first of several processes measures")
