"""Scores of a few images, written by hand, as selection reads them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mad_backend.core.scores import ClassAreas, PairScores

PIXELS = 10_000


class Score(NamedTuple):
    """One image of one competitor; `target` and `other` are shares of (cat, dog)."""

    image_id: str
    d: float
    target: tuple[float, float] = (0.5, 0.0)
    other: tuple[float, float] = (0.0, 0.0)
    competitor: str = "g"
    look: int = 0


def areas_of(shares: Sequence[Sequence[float]]) -> ClassAreas:
    pixels = [[(k, round(share * PIXELS)) for k, share in enumerate(row, start=1) if share] for row in shares]
    entries = [entry for row in pixels for entry in row]
    return ClassAreas(
        np.cumsum([0, *(len(row) for row in pixels)]).astype(np.int32),
        np.array([k for k, _ in entries], np.uint8),
        np.array([n for _, n in entries], np.uint32),
    )


def batches(scores: Sequence[Score], size: int = 100, competitors: str = "g") -> dict[str, list[PairScores]]:
    """At most `size` images each, in the order given, by competitor."""
    found = {}
    for competitor in competitors:
        own = [s for s in scores if s.competitor == competitor]
        found[competitor] = [columns(own[start : start + size]) for start in range(0, len(own), size)]
    return found


def columns(scores: Sequence[Score]) -> PairScores:
    count = len(scores)
    return PairScores(
        [s.image_id for s in scores],
        np.zeros(count, np.uint64),
        np.array([s.look for s in scores], np.uint64),
        np.full(count, PIXELS, np.uint32),
        np.array([s.d for s in scores]),
        np.array([1 - s.d for s in scores]),
        areas_of([s.target for s in scores]),
        areas_of([s.other for s in scores]),
    )
