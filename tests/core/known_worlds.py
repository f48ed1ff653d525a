"""Worlds of images whose true figures are known: populations of confusion matrices to draw test sets from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import iou_per_class

PIXELS = 10_000
IMAGES = 2000


@dataclass(frozen=True)
class World:
    """Matrices (N, C, C + 1) of two models on the N images of a population."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @cached_property
    def ious(self) -> NDArray[np.float64]:
        """(2, C) true IoUs of both models."""
        return iou_per_class(np.stack([self.first.sum(axis=0), self.second.sum(axis=0)]))

    def miou(self, model: int, shown: NDArray[np.int64]) -> float:
        """True dataset mIoU over the classes that `shown`, (n, C, C + 1), has pixels of."""
        return float(self.ious[model][~np.isnan(iou_per_class(shown.sum(axis=0)))].mean())

    def test_sets(self, n: int, repeats: int, seed: int) -> Iterator[NDArray[np.int64]]:
        """Which images are in each of many test sets."""
        rng = np.random.default_rng(seed)
        for _ in range(repeats):
            yield rng.integers(len(self.first), size=n)


def world(
    seed: int, presence: Sequence[float], agreement: float, spread: float, gain: float = 0, changed: float = 1
) -> World:
    """Classes are in shares `presence` of the images, of areas whose logarithm varies by `spread`.

    How much of a class a model meets in an image is of a beta distribution, of which 1 in `agreement` is sharp (all or
    nothing) and 20 soft; `gain` moves the second model's log odds, on a share `changed` of the images: it is the first
    model on the others.
    """
    rng = np.random.default_rng(seed)
    classes = len(presence)
    there = rng.random((IMAGES, classes)) < presence
    there[~there.any(axis=1), 0] = True
    areas = np.where(there, np.exp(rng.normal(0, spread, there.shape)), 0)
    areas = np.round(areas / areas.sum(axis=1, keepdims=True) * PIXELS).astype(np.int64)
    quality = rng.uniform(0.4, 0.9, classes)
    odds = np.log(quality / (1 - quality)) + rng.normal(0, 0.7, (IMAGES, 1))
    confused_with = np.where(np.arange(classes) > 0, 0, 1)
    confused_with[1:] = np.where(rng.random(classes - 1) < 0.5, 0, rng.permutation(classes - 1) + 1)

    def predicted(shift: float) -> NDArray[np.int64]:
        mean = 1 / (1 + np.exp(-odds - shift))
        met = rng.beta(mean * agreement, (1 - mean) * agreement)
        hits = np.round(areas * met).astype(np.int64)
        matrices = np.zeros((IMAGES, classes, classes + 1), np.int64)
        for k in range(classes):
            matrices[:, k, confused_with[k]] += areas[:, k] - hits[:, k]
            matrices[:, k, k] += hits[:, k]
        return matrices

    first = predicted(0)
    others = rng.random(IMAGES) < changed
    return World(first, np.where(others[:, None, None], predicted(gain), first))


def family(presence: Sequence[float], agreement: float, spread: float, **gains: float) -> list[World]:
    """Five worlds of one kind, as the next five numbers of chance have it."""
    return [world(seed, presence, agreement, spread, **gains) for seed in range(5)]
