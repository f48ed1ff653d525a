"""A duel of two models: who is better on the images on which they disagree most (App. A, Table 2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import mean_iou
from mad_backend.core.statistics import Estimate, estimate_difference, estimate_miou, images_needed

CONFIDENCE = 0.95
"""Of the interval of the difference that decides."""


class Side(StrEnum):
    """One of the two models of a duel."""

    FIRST = "first"
    SECOND = "second"


@dataclass(frozen=True)
class Duellist:
    """A model of a duel by its name and the key of its label maps, which stands for its weights and settings."""

    name: str
    key: str


@dataclass(frozen=True)
class DuelImage:
    """An image of a duel and how much the two models disagree on it, d of Eq. (1)."""

    image_id: str
    discrepancy: float


@dataclass(frozen=True)
class Duel:
    """Two models and the images that were drawn for them, in the order drawn; never changed once it is recorded."""

    first: Duellist
    second: Duellist
    budget: int
    seed: int
    images: tuple[DuelImage, ...]
    created_at: datetime

    @property
    def title(self) -> str:
        """For people; two duels may have one, if weights changed under a model's name."""
        return f"{self.first.name} - {self.second.name}"


@dataclass(frozen=True)
class DuelResult:
    """Dataset mIoU of both, the first one's less the second one's, paired by image, each with its 95 % interval.

    `wins` counts the images on which the first model has the higher image mIoU, `losses` those of the second, `ties`
    the others, and `sign_p` is what the two-sided sign test makes of that (Dixon and Mood 1946): the chance of so
    uneven a count, or a more uneven one, between two models that are equally good. `winner` goes by dataset mIoU: None
    where the interval of the difference holds 0, or images are too few to tell.
    """

    images: int
    first: Estimate
    second: Estimate
    difference: Estimate
    wins: int
    losses: int
    ties: int
    sign_p: float
    winner: Side | None


def score_duel(
    first: NDArray[np.int64], second: NDArray[np.int64], counted: Sequence[int] | None
) -> DuelResult:
    """From (n, C, C + 1) confusion matrices of the same n images in the same order; mIoUs are over `counted`.

    Raises ValueError where the shapes differ.
    """
    difference = estimate_difference(first, second, counted, confidence=CONFIDENCE)
    own, other = image_mious(first, counted), image_mious(second, counted)
    winner = None
    if len(first) >= images_needed(CONFIDENCE):
        # NaN, where nothing was measured, is neither.
        winner = Side.FIRST if difference.low > 0 else Side.SECOND if difference.high < 0 else None
    wins, losses = int((own > other).sum()), int((own < other).sum())
    return DuelResult(
        len(first),
        estimate_miou(first, counted),
        estimate_miou(second, counted),
        difference,
        wins,
        losses,
        len(first) - wins - losses,
        _sign_test(wins, losses),
        winner,
    )


def image_mious(matrices: NDArray[np.int64], counted: Sequence[int] | None) -> NDArray[np.float64]:
    """(n,) image mIoUs; 1 where there is no pixel of a counted class to find and none was found."""
    return np.nan_to_num(np.array([mean_iou(m, counted) for m in matrices], np.float64), nan=1.0)


def _sign_test(wins: int, losses: int) -> float:
    """Two-sided p of so many wins and losses, if each came by the toss of a coin."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / (1 << n)
    return min(1.0, 2 * tail)
