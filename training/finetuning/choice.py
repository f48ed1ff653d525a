"""Which of several runs becomes the next version (`training.choose`)."""

import logging
from collections.abc import Sequence

from mad_backend.core.statistics import estimate_difference
from training.finetuning.dev import read_matrices
from training.finetuning.job import Job
from training.finetuning.plan import RunResult

WHY = {
    "best": "the highest dev score of all epochs of all learning rates; of equal ones the lower rate, then the earlier "
    "epoch",
    "careful": "the best epoch of the run with a teacher at the lowest learning rate, unless another run is better on "
    "the dev set beyond doubt (interval of the paired difference, 95 %)",
}
"""What settings' `choose` means, for the record."""

log = logging.getLogger(__name__)


def choose(job: Job, runs: Sequence[RunResult]) -> RunResult:
    """Of runs at different rates the best or, by settings, the most protective that is not clearly surpassed."""
    return careful(job, runs) if job.settings.choose == "careful" else best(runs)


def best(runs: Sequence[RunResult]) -> RunResult:
    """The highest dev score of all (Sec. 4.1: "grid search"); of equals the lower rate."""
    return min(runs, key=lambda run: (-run.best.dev, run.learning_rate))


def careful(job: Job, runs: Sequence[RunResult]) -> RunResult:
    """The run with a teacher at the lowest rate, unless another is better on the dev set beyond doubt.

    A dev set of some dozen images cannot tell rates apart that differ by a point of mIoU: its favourite is a matter of
    luck, and the larger the step the more a target may forget elsewhere. So runs are looked at in the order of what
    they risk, those with a teacher first, small rates first; each takes the place of the one before it if the 95 %
    interval of the paired difference lies above 0.
    """
    free = job.settings.distillation.free_rates
    order = sorted(runs, key=lambda run: (run.learning_rate in free, run.learning_rate))
    chosen = order[0]
    for other in order[1:]:
        before, after = read_matrices(chosen.folder), read_matrices(other.folder)
        if before is None or after is None:
            continue
        gain = estimate_difference(after, before, job.counted)
        is_better = gain.low > 0
        log.info(
            "at %g instead of %g: %+.2f [%+.2f, %+.2f] points on the dev set; %s",
            other.learning_rate,
            chosen.learning_rate,
            100 * gain.value,
            100 * gain.low,
            100 * gain.high,
            "better" if is_better else "not beyond doubt",
        )
        if is_better:
            chosen = other
    return chosen
