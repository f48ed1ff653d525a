"""Which of several runs becomes the next version (`training.choose`)."""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.statistics import CONFIDENCE, Estimate, estimate_difference
from training.finetuning.dev import DevScore, read_matrices
from training.finetuning.job import Job
from training.finetuning.plan import GivenUp, Hopeless, RunResult

WHY = {
    "best": "the highest dev score of all epochs of all learning rates; of equal ones the lower rate, then the earlier "
    "epoch",
    "careful": "the best epoch of the run with a teacher at the lowest learning rate, unless another run is better on "
    "the dev set by more than one standard error of the paired difference",
}
"""What settings' `choose` means, for the record."""

ONE_ERROR = 0.6827
"""Confidence of an interval that is one standard error to either side."""
PATIENT_SHARE = 1 / 3
"""Of a run's epochs, before which none is told that it is hopeless: large steps look bad at first."""

log = logging.getLogger(__name__)


def choose(job: Job, runs: Sequence[RunResult]) -> RunResult:
    """Of runs at different rates the best or, by settings, the most protective that is not clearly surpassed."""
    return careful(job, runs) if job.settings.choose == "careful" else best(runs)


def best(runs: Sequence[RunResult]) -> RunResult:
    """The highest dev score of all (Sec. 4.1: "grid search"); of equals the lower rate."""
    return min(runs, key=lambda run: (-run.best.dev, run.learning_rate))


def careful(job: Job, runs: Sequence[RunResult]) -> RunResult:
    """The run with a teacher at the lowest rate, unless another is better on the dev set by more than chance.

    A dev set of some dozen images cannot tell rates apart that differ by a point of mIoU: its favourite is a matter of
    luck, and the larger the step the more a target may forget elsewhere. So runs are looked at in the order of what
    they risk, those with a teacher first, small rates first; each takes the place of the one before it if the paired
    difference is larger than its standard error (the one-standard-error rule: Hastie et al. 2009, "The Elements of
    Statistical Learning", Sec. 7.10). To ask for 95 % here would leave S unlearnt: a dev set of the benchmark hardly
    shows what failures teach, and what T(0) may lose is the gate's to judge.
    """
    by_rate = {run.learning_rate: run for run in runs}
    chosen, *others = (by_rate[rate] for rate in by_risk(job, list(by_rate)))
    for other in others:
        gain = _gain(job, chosen, read_matrices(other.folder), ONE_ERROR)
        if gain is None:
            continue
        is_better = gain.low > 0
        log.info(
            "at %g instead of %g: %+.2f [%+.2f, %+.2f] points on the dev set, give or take a standard error; %s",
            other.learning_rate,
            chosen.learning_rate,
            100 * gain.value,
            100 * gain.low,
            100 * gain.high,
            "taken" if is_better else "not taken",
        )
        if is_better:
            chosen = other
    return chosen


def by_risk(job: Job, rates: Sequence[float]) -> list[float]:
    """`rates` in the order in which they are trained and, if the choice is careful, looked at: the safest first."""
    if job.settings.choose != "careful":
        return list(rates)
    free = job.settings.distillation.free_rates
    return sorted(rates, key=lambda rate: (rate in free, rate))


def hopeless_beside(job: Job, earlier: Sequence[RunResult], epochs: int) -> Hopeless | None:
    """When to end a run that a careful choice would not take, since it is worse than `earlier` ones beyond doubt.

    It is looked at from the end of the first third of its `epochs` on. None where nothing is to compare it with.
    """
    if job.settings.choose != "careful" or not earlier:
        return None
    leader = careful(job, earlier)

    def hopeless(epoch: int, score: DevScore) -> GivenUp | None:
        is_asked = PATIENT_SHARE * epochs <= epoch < epochs
        gain = _gain(job, leader, score.matrices) if is_asked else None
        if gain is None or gain.high >= 0:
            return None
        return GivenUp(
            leader.learning_rate,
            f"epoch {epoch} is worse than what {leader.learning_rate:g} came to beyond doubt: "
            f"{100 * gain.value:+.2f} [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}] points on the dev set",
        )

    return hopeless


def _gain(
    job: Job, over: RunResult, matrices: NDArray[np.int64] | None, confidence: float = CONFIDENCE
) -> Estimate | None:
    """What these dev matrices are better by; None where one side's are not known."""
    before = read_matrices(over.folder)
    if before is None or matrices is None:
        return None
    return estimate_difference(matrices, before, job.counted, confidence=confidence)
