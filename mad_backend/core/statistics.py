"""Bootstrap intervals of dataset mIoU, for the report and the gate (method.md section 7)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import dataset_miou, iou_per_class

BLOCK = 64
"""Draws whose pooled matrices are held at once: with 150 classes, 12 MB of them."""


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap interval, the 95 % one unless another was asked for; NaN where nothing is measured."""

    value: float
    low: float
    high: float


def bootstrap_miou(
    matrices: NDArray[np.int64], seed: int, draws: int = 1000, classes: Sequence[int] | None = None
) -> Estimate:
    """Dataset mIoU (over `classes`) of (n, C, C + 1) confusion matrices, images resampled with replacement."""
    counts = _Counts(matrices, classes)
    value = dataset_miou(matrices, classes)
    return _bootstrap(value, counts.miou, _weights(len(matrices), None, seed, draws), 0.95)


def bootstrap_difference(
    after: NDArray[np.int64],
    before: NDArray[np.int64],
    seed: int,
    draws: int = 1000,
    classes: Sequence[int] | None = None,
    strata: NDArray[np.int64] | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Paired difference of dataset mIoU, f(i) - f(i-1), on the same images in the same order, both (n, C, C + 1).

    `strata` (n,) says which sample each image is of: images are then resampled within their own sample, as they were
    drawn (Davison and Hinkley 1997, Sec. 3.2; Efron and Tibshirani 1993, Ch. 8). None: all are of one sample.
    """
    if after.shape != before.shape:
        raise ValueError(f"paired matrices differ in shape: {after.shape} and {before.shape}")

    new, old = _Counts(after, classes), _Counts(before, classes)

    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return new.miou(weights) - old.miou(weights)

    value = dataset_miou(after, classes) - dataset_miou(before, classes)
    return _bootstrap(value, difference, _weights(len(after), strata, seed, draws), confidence)


def images_needed(confidence: float) -> int:
    """The fewest images whose bootstrap interval says anything: 6 for 95 %.

    Were there no difference, each image would gain or lose as by the toss of a coin, and all n would gain with a chance
    of 2^-n, the interval of any bootstrap then lying above 0. Fewer images come out so too often (the sign test).
    """
    return math.ceil(math.log2(2 / (1 - confidence)))


class _Counts:
    """Confusion matrices of n images, of which draws are pooled by one product."""

    def __init__(self, matrices: NDArray[np.int64], classes: Sequence[int] | None) -> None:
        self._shape = matrices.shape[1:]
        # Counts are exact in float64 up to 2^53, and its product is what BLAS is fast at.
        self._flat = matrices.reshape(len(matrices), math.prod(self._shape)).astype(np.float64)
        self._classes = classes

    def miou(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(d,) dataset mIoU of (d, n) draws; NaN where no counted class is present."""
        pooled = (weights @ self._flat).reshape(-1, *self._shape)
        iou = iou_per_class(pooled.astype(np.int64))
        if self._classes is not None:
            iou = iou[:, list(self._classes)]
        present = ~np.isnan(iou)
        number = present.sum(axis=1)
        return np.where(number > 0, np.where(present, iou, 0).sum(axis=1) / np.maximum(number, 1), np.nan)


def _weights(n: int, strata: NDArray[np.int64] | None, seed: int, draws: int) -> NDArray[np.float64]:
    """(draws, n): how many times each image is in each draw."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, n))
    own = np.zeros(n, np.int64) if strata is None else strata
    rows = np.arange(draws)[:, None]
    for stratum in np.unique(own):
        members = np.flatnonzero(own == stratum)
        chosen = members[rng.integers(len(members), size=(draws, len(members)))]
        weights += np.bincount((rows * n + chosen).ravel(), minlength=draws * n).reshape(draws, n)
    return weights


def _bootstrap(
    value: float,
    measure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    weights: NDArray[np.float64],
    confidence: float,
) -> Estimate:
    draws, n = weights.shape
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    values = np.concatenate([measure(weights[start : start + BLOCK]) for start in range(0, draws, BLOCK)])
    counted = values[~np.isnan(values)]  # a draw of nothing but void has no mIoU
    if not len(counted):
        return Estimate(math.nan, math.nan, math.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(counted, (tail, 1 - tail))
    return Estimate(value, float(low), float(high))
