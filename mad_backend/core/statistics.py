"""Intervals and rank correlation for the report (method.md section 7)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import dataset_miou


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_miou(
    matrices: NDArray[np.int64], seed: int, draws: int = 1000, classes: Sequence[int] | None = None
) -> Estimate:
    """Dataset mIoU (over `classes`) of (n, C, C + 1) confusion matrices, images resampled with replacement."""
    return _bootstrap(len(matrices), lambda chosen: dataset_miou(matrices[chosen], classes), seed, draws)


def bootstrap_difference(
    after: NDArray[np.int64],
    before: NDArray[np.int64],
    seed: int,
    draws: int = 1000,
    classes: Sequence[int] | None = None,
) -> Estimate:
    """Paired difference of dataset mIoU, f(i) - f(i-1), on the same images in the same order, both (n, C, C + 1)."""
    if after.shape != before.shape:
        raise ValueError(f"paired matrices differ in shape: {after.shape} and {before.shape}")

    def difference(chosen: NDArray[np.int64]) -> float:
        return dataset_miou(after[chosen], classes) - dataset_miou(before[chosen], classes)

    return _bootstrap(len(after), difference, seed, draws)


def _bootstrap(n: int, measure: Callable[[NDArray[np.int64]], float], seed: int, draws: int) -> Estimate:
    if n == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    values = [measure(rng.integers(n, size=n)) for _ in range(draws)]
    counted = [v for v in values if not math.isnan(v)]  # a draw of nothing but void has no mIoU
    if not counted:
        return Estimate(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(counted, (0.025, 0.975))
    return Estimate(measure(np.arange(n)), float(low), float(high))
