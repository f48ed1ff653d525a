"""Intervals hold the truth as often as they say, in worlds where the truth is known."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from mad_backend.core.metrics import iou_per_class, pixel_accuracy
from mad_backend.core.statistics import Estimate, estimate_all, estimate_difference, estimate_miou
from tests.core.known_worlds import World, family

Indices = NDArray[np.int64]
FEW = 30
"""Images of a T, as in the paper."""

SOFT = family([1, 0.7, 0.5, 0.5], agreement=20, spread=1)
SHARP = family([1, 0.7], agreement=1.2, spread=1, gain=0.2)
RARE = family([1, 0.7, 0.6, 0.5, 0.1, 0.1], agreement=3, spread=1, gain=0.2)
MANY = family([1] + [0.2] * 20, agreement=4, spread=1.5)
NEAR = family([1, 0.7, 0.6, 0.4, 0.3], agreement=3, spread=1, gain=0.1, changed=0.4)
"""60 % of the images have the same label map of both models."""


def coverage(
    worlds: Sequence[World],
    n: int,
    repeats: int,
    interval: Callable[[World, Indices], Estimate],
    truth: Callable[[World, Indices], float],
) -> float:
    """Percent of test sets of n images, `repeats` of each world, whose interval holds the truth."""
    held = [
        (found := interval(place, chosen)).low <= truth(place, chosen) <= found.high
        for seed, place in enumerate(worlds)
        for chosen in place.test_sets(n, repeats, seed)
    ]
    return 100 * float(np.mean(held))


def miou(place: World, chosen: Indices) -> float:
    return place.miou(0, place.first[chosen])


def difference(place: World, chosen: Indices) -> float:
    return place.miou(1, place.second[chosen]) - miou(place, chosen)


def is_95(percent: float) -> bool:
    return 93 <= percent <= 97


@pytest.mark.parametrize(
    ("worlds", "n"),
    [(SOFT, FEW), (SHARP, FEW), (RARE, FEW), (MANY, 70), (RARE, 138)],
    ids=["soft", "sharp", "rare", "many classes", "rare, many images"],
)
def test_95_of_100_intervals_of_dataset_miou_hold_the_truth(worlds: list[World], n: int) -> None:
    percent = coverage(worlds, n, 160, lambda place, chosen: estimate_miou(place.first[chosen]), miou)
    assert is_95(percent), percent


@pytest.mark.parametrize("worlds", [SHARP, RARE, NEAR], ids=["sharp", "rare", "nearly equal"])
def test_95_of_100_intervals_of_a_paired_difference_hold_the_truth(worlds: list[World]) -> None:
    def interval(place: World, chosen: Indices) -> Estimate:
        return estimate_difference(place.second[chosen], place.first[chosen])

    percent = coverage(worlds, FEW, 160, interval, difference)
    assert is_95(percent), percent


def test_95_of_100_intervals_of_all_other_figures_hold_the_truth() -> None:
    held = []
    for seed, place in enumerate(SHARP):
        image_miou = float(np.nanmean(np.nanmean(iou_per_class(place.first), axis=1)))
        truths = (image_miou, pixel_accuracy(place.first.sum(axis=0)), *place.ious[0])
        for chosen in place.test_sets(FEW, 80, seed):
            figures = estimate_all(place.first[chosen])
            found = (figures.image_miou, figures.pixel_accuracy, *figures.per_class)
            held.append([e.low <= truth <= e.high for e, truth in zip(found, truths, strict=True)])
    percents = 100 * np.mean(held, axis=0)
    assert all(is_95(percent) for percent in percents), percents


def test_an_interval_that_holds_the_truth_too_seldom_is_caught() -> None:
    """The percentile bootstrap, which knows a rare class by the images that happen to show it."""
    weights = np.random.default_rng(0).multinomial(FEW, [1 / FEW] * FEW, size=200)

    def percentile(place: World, chosen: Indices) -> Estimate:
        matrices = place.first[chosen]
        drawn = weights @ matrices.reshape(FEW, -1).astype(np.float64)
        mious = np.nanmean(iou_per_class(drawn.astype(np.int64).reshape(-1, *matrices.shape[1:])), axis=1)
        return Estimate(np.nan, *np.quantile(mious, (0.025, 0.975)).tolist())

    percent = coverage(MANY, FEW, 20, percentile, miou)
    assert percent < 90
    assert not is_95(percent)
