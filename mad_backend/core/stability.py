"""How many images of T the ranking of the models needs (Fig. 7, App. C of the paper: "top-k ranking")."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import intersections_and_unions

FIRST = 20
"""The fewest images that the paper ranks models by."""


@dataclass(frozen=True)
class StabilityPoint:
    """Spearman correlation of the ranking by the first `images` of T, as drawn, with the ranking by all of T.

    `low` and `high` are what the middle 95 % of orders of the same images give. NaN where there is no ranking: all
    models are tied, or one of them is not measured by so few images.
    """

    images: int
    srcc: float
    low: float
    high: float


def stability_curve(
    matrices: Mapping[str, NDArray[np.int64]],
    classes: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
    orders: int = 200,
) -> tuple[StabilityPoint, ...]:
    """Fig. 7 of (n, C, C + 1) matrices by model, of the same n images in the order in which they were drawn.

    Models are ranked by dataset mIoU over `classes`, for the given sizes, by default from 20, or from half of fewer
    than 40, to n. The last images always agree with all of them, of which they are nearly all: SRCC is 1 at n, and says
    nothing about images that were not drawn. Of few models it is coarse: two that change places leave 0.5 of three, 0.8
    of four, 0.94 of six. Raises ValueError for fewer than two models, for models of unequal shapes and for sizes
    outside 1..n.
    """
    shapes = {name: stack.shape for name, stack in matrices.items()}
    if len(shapes) < 2 or len(set(shapes.values())) != 1:
        raise ValueError(f"a ranking wants two models or more measured on the same images, not {shapes}")
    n = next(iter(shapes.values()))[0]
    if not n:
        return ()
    ks = list(range(min(FIRST, math.ceil(n / 2)), n + 1)) if sizes is None else list(sizes)
    if not all(1 <= k <= n for k in ks):
        raise ValueError(f"sizes {ks} of a test set of {n} images")
    counts = [intersections_and_unions(stack) for stack in matrices.values()]
    chosen = slice(None) if classes is None else list(classes)
    both = np.array(counts, np.float64)[:, :, :, chosen].swapaxes(0, 1)
    every = _mious(both, [n])[0]
    rng = np.random.default_rng(seed)
    drawn = spearman(_mious(both, ks), every)
    found = np.stack([spearman(_mious(both[:, :, rng.permutation(n)], ks), every) for _ in range(orders)])
    return tuple(
        StabilityPoint(k, srcc, *_middle(column))
        for k, srcc, column in zip(ks, drawn.tolist(), found.T, strict=True)
    )


def stable_from(curve: Sequence[StabilityPoint], threshold: float = 0.95, running: int = 5) -> int | None:
    """The smallest size from which SRCC is `threshold` or more for `running` sizes of the curve running, None if never.

    A threshold over 0.94 asks six models or fewer for the same ranking, to the last place.
    """
    held = [point.srcc >= threshold - 1e-9 for point in curve]
    return next(
        (
            curve[start].images
            for start in range(len(curve) - running + 1)
            if all(held[start : start + running])
        ),
        None,
    )


def spearman(rankings: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) rank correlations of (k, m) with (m,) values, ties by mean rank; NaN for a NaN or nothing but ties."""
    found, wanted = _ranks(rankings), _ranks(reference)
    scale = np.sqrt((found**2).sum(axis=1) * (wanted**2).sum())
    known = (scale > 0) & ~np.isnan(rankings).any(axis=1) & ~np.isnan(reference).any()
    return np.where(known, found @ wanted / np.where(known, scale, 1), np.nan)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., m) ranks less their mean, equals by the mean of theirs."""
    others, own = values[..., None, :], values[..., :, None]
    ranks = (others < own).sum(axis=-1) + (others == own).sum(axis=-1) / 2
    centred: NDArray[np.float64] = ranks - ranks.mean(axis=-1, keepdims=True)
    return centred


def _mious(both: NDArray[np.float64], sizes: Sequence[int]) -> NDArray[np.float64]:
    """(sizes, models) dataset mIoU by the first images of (2, models, n, K) intersections and unions.

    NaN where no counted class is present.
    """
    intersections, unions = both.cumsum(axis=2)[:, :, np.array(sizes) - 1]
    present = unions > 0
    number = present.sum(axis=-1)
    total = (intersections / np.where(present, unions, 1)).sum(axis=-1)
    mious: NDArray[np.float64] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return mious.T


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    counted = values[~np.isnan(values)]
    if not len(counted):
        return math.nan, math.nan
    low, high = np.quantile(counted, (0.025, 0.975))
    return float(low), float(high)
