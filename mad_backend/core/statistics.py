"""Intervals of what is measured on a test set, for the report and the gate (method.md section 7).

Every figure is a mean of ratios of sums over images: of pooled counts for dataset mIoU, of pixels for pixel accuracy.
Its standard error is the jackknife's, each image left out in turn (Efron and Tibshirani 1993, Ch. 11), its quantile is
Student's t. The percentile bootstrap held the true dataset mIoU in only 58 to 95 of 100 test sets of 30 images where it
should in 95: a draw forgets how much a rare class hangs on the few images that show it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import (
    dataset_miou,
    image_miou,
    intersections_and_unions,
    iou_per_class,
    pixel_accuracy,
)

CONFIDENCE = 0.95
"""How often an interval is to hold the truth, where nothing else is asked for."""
ANGLES = 4096
"""Steps from 0 to a right angle in which Student's t is integrated: quantiles to 4 digits up to 10,000 images."""

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, the 95 % one unless another was asked for; NaN where nothing is measured."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figures:
    """All figures of one model on `images` images, each with its 95 % interval.

    `dataset_miou` and `image_miou` are over the counted classes; `pixel_accuracy` and `per_class`, C IoUs of the pooled
    counts, over all; NaN for a class that is nowhere.
    """

    images: int
    dataset_miou: Estimate
    image_miou: Estimate
    pixel_accuracy: Estimate
    per_class: tuple[Estimate, ...]


def estimate_miou(matrices: NDArray[np.int64], classes: Sequence[int] | None = None) -> Estimate:
    """Dataset mIoU (over `classes`) of (n, C, C + 1) confusion matrices of n images drawn at random.

    The interval is for the classes that these images or the predictions of them show, as dataset mIoU is. Such a class
    without a true pixel has IoU 0, however well it is met elsewhere: a set that shows few of its classes reads too low,
    by 3 points where 20 classes are in 8 % of 30 images each (and the interval then holds in 93 to 94 of 100 sets).
    """
    return _share(dataset_miou(matrices, classes), *_counts(matrices, classes))


def estimate_difference(
    after: NDArray[np.int64],
    before: NDArray[np.int64],
    classes: Sequence[int] | None = None,
    strata: NDArray[np.int64] | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Paired difference of dataset mIoU, f(i) - f(i-1), on the same images in the same order, both (n, C, C + 1).

    `strata` (n,) says which sample each image is of: images then vary within their own sample only, as they were drawn
    (Shao and Tu 1995, Sec. 6.2). None: all are of one sample. Where images only gain, few of them much, the interval is
    below the true gain for 6 to 14 of 100 sets of 30 images, and above it for less than one: too careful for a gate.
    Raises ValueError for unequal shapes, and for a sample of one image among others.
    """
    if after.shape != before.shape:
        raise ValueError(f"paired matrices differ in shape: {after.shape} and {before.shape}")
    value = dataset_miou(after, classes) - dataset_miou(before, classes)
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan)
    if len(after) < 2:
        return Estimate(value, -1.0, 1.0)
    own = np.zeros(len(after), np.int64) if strata is None else strata
    new, old = (_left_out(*_counts(matrices, classes), own) for matrices in (after, before))
    left_out = new - old
    if np.isnan(left_out).any():
        return Estimate(value, -1.0, 1.0)
    freedom = len(own) - len(np.unique(own))
    reach = student_quantile(confidence, freedom) * math.sqrt(_squares(left_out, own).sum())
    return Estimate(value, max(value - reach, -1.0), min(value + reach, 1.0))


def estimate_all(matrices: NDArray[np.int64], classes: Sequence[int] | None = None) -> Figures:
    """Every figure of (n, C, C + 1) confusion matrices of n images; mIoUs are over `classes`.

    Of a class that 3 of 30 images show, the interval is as wide as that says, and still holds in 90 of 100 sets only.
    """
    intersections, unions = _counts(matrices, None)
    pooled = matrices.sum(axis=0)
    counted = _counts(matrices, classes)
    each = _mean_ratio(*counted)[:, None]
    hits = np.trace(matrices, axis1=1, axis2=2)[:, None].astype(np.float64)
    pixels = matrices.sum(axis=(1, 2))[:, None].astype(np.float64)
    return Figures(
        len(matrices),
        _share(dataset_miou(matrices, classes), *counted),
        _share(image_miou(matrices, classes), np.nan_to_num(each), (~np.isnan(each)).astype(np.float64)),
        _share(pixel_accuracy(pooled), hits, pixels),
        tuple(
            _share(float(iou), intersections[:, [k]], unions[:, [k]])
            for k, iou in enumerate(iou_per_class(pooled))
        ),
    )


def images_needed(confidence: float) -> int:
    """The fewest images by which a difference can be told at all: 6 for 95 %.

    Were there no difference, each image would gain or lose as by the toss of a coin, and all n would gain with a chance
    of 2^-n. Fewer images come out so too often, whatever an interval makes of them (the sign test).
    """
    return math.ceil(math.log2(2 / (1 - confidence)))


def student_quantile(confidence: float, freedom: float) -> float:
    """What the absolute value of Student's t with `freedom` >= 1 degrees stays under with probability `confidence`.

    With t = sqrt(freedom) tan(angle), the density of the angle is in proportion to cos(angle)^(freedom - 1).
    """
    edges = np.linspace(0, math.pi / 2, ANGLES + 1)
    within = np.concatenate([[0.0], np.cumsum(np.cos((edges[1:] + edges[:-1]) / 2) ** (freedom - 1))])
    return math.sqrt(freedom) * math.tan(float(np.interp(confidence, within / within[-1], edges)))


def _counts(matrices: NDArray[np.int64], classes: Sequence[int] | None) -> tuple[Floats, Floats]:
    """(n, K) intersections and (n, K) unions of the counted classes in each image."""
    intersections, unions = intersections_and_unions(matrices)
    chosen = slice(None) if classes is None else list(classes)
    return intersections[:, chosen].astype(np.float64), unions[:, chosen].astype(np.float64)


def _left_out(parts: Floats, wholes: Floats, strata: NDArray[Any]) -> Floats:
    """(n,) mean over K of sums of (n, K) `parts` over sums of `wholes`, with each image left out in turn.

    The others of its sample stand in for it. A ratio that is of no other image leaves the mean, as it does in dataset
    mIoU; NaN where none is left.
    """
    shown = wholes > 0
    elsewhere = shown.sum(axis=0) > shown
    # Of no other image: 0 to the last bit, which a sum of shares would miss.
    return _mean_ratio(_without(parts, strata), np.where(elsewhere, _without(wholes, strata), 0))


def _mean_ratio(parts: Floats, wholes: Floats) -> Floats:
    """(n,) means over K of (n, K) ratios, of those with a whole; NaN where there is none."""
    known = wholes > 0
    total = np.where(known, parts / np.where(known, wholes, 1), 0).sum(axis=1)
    number = known.sum(axis=1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _without(values: Floats, strata: NDArray[Any]) -> Floats:
    """(n, K) sums of (n, K) `values` over images, without each image in turn."""
    rest = np.empty_like(values)
    for stratum in np.unique(strata):
        own = strata == stratum
        n = int(own.sum())
        if n < 2:
            raise ValueError(
                f"sample {stratum} has one image, of which no spread is known; join it with another"
            )
        total = values[own].sum(axis=0)
        rest[own] = values[~own].sum(axis=0) + (total - values[own]) * (n / (n - 1))
    return rest


def _squares(left_out: Floats, strata: NDArray[Any]) -> Floats:
    """(n,) what each image adds to the variance of a figure, by what the figure is without it, (n,)."""
    squares = np.empty_like(left_out)
    for stratum in np.unique(strata):
        own = strata == stratum
        squares[own] = (1 - 1 / own.sum()) * (left_out[own] - left_out[own].mean()) ** 2
    return squares


def _freedom(squares: Floats) -> float:
    """Degrees of freedom of the error that is the root of the sum of (n,) squares, Satterthwaite's (1946).

    Where few images make most of the error, it is as little known as by so few images.
    """
    uncertainty = float(((squares - squares.mean()) ** 2).sum())
    most = len(squares) - 1.0
    return min(max(2 * float(squares.sum()) ** 2 / uncertainty, 1.0), most) if uncertainty else most


def _share(value: float, parts: Floats, wholes: Floats) -> Estimate:
    """A mean of ratios in [0, 1], of (n, K) parts and wholes, with an interval that is symmetric in its log odds."""
    shows = int((wholes > 0).any(axis=1).sum())
    if not shows:
        return Estimate(math.nan, math.nan, math.nan)
    if shows == 1:
        return Estimate(value, 0.0, 1.0)
    if value in {0.0, 1.0}:
        # All images agree, so there is no spread to go by: the limit of so many agreeing trials (Clopper and Pearson
        # 1934).
        beyond = 1 - ((1 - CONFIDENCE) / 2) ** (1 / shows)
        return Estimate(value, value * (1 - beyond), value + (1 - value) * beyond)
    one_sample = np.zeros(len(wholes), np.int64)
    squares = _squares(_left_out(parts, wholes, one_sample), one_sample)
    quantile = student_quantile(CONFIDENCE, min(_freedom(squares), shows - 1))
    reach = quantile * math.sqrt(squares.sum()) / (value * (1 - value))
    middle = math.log(value / (1 - value))
    return Estimate(value, _of_odds(middle - reach), _of_odds(middle + reach))


def _of_odds(log_odds: float) -> float:
    """Share in [0, 1] of a logarithm of odds, however large."""
    return 0.5 * (1 + math.tanh(log_odds / 2))
