"""M: the images on which target and competitors disagree most, class by class (Sec. 3.1, Eq. 2).

Algorithm 1, lines 6-15. Scores are read as a stream: what is held grows with cells and n3, not with the pool.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Candidate, Metric, Provenance, Role
from mad_backend.core.scores import PairScores

if TYPE_CHECKING:
    from mad_backend.core.cells import BestImages

MIN_TRAINING_IMAGES = 20
"""A class seen in fewer training images has quartiles too uncertain to use as they are."""
WIDENED_QUANTILES = (0.05, 0.95)


@dataclass(frozen=True)
class Window:
    """[low, high], bounds inclusive: area shares of a class that are of practical relevance.

    `images` is the number of training images behind it; `is_widened` says that they were too few.
    """

    low: float
    high: float
    images: int
    is_widened: bool = False


@dataclass(frozen=True)
class Cell:
    """What one cell of Eq. (2) chose: `chosen` of `eligible` images, d from `largest` to `smallest` (None for none).

    `tied` images that were left out have the smallest chosen d too; `near_duplicates` of the n3 best were passed over,
    because they look like a better one.
    """

    competitor: str
    class_id: int
    role: Role
    eligible: int
    chosen: int
    largest: float | None
    smallest: float | None
    tied: int
    near_duplicates: int


@dataclass(frozen=True)
class ShortCell:
    """A cell of Eq. (2) that had fewer than n3 eligible images."""

    competitor: str
    class_id: int
    role: Role
    found: int


@dataclass(frozen=True)
class Selection:
    """M with provenance, by image id; every cell; and how many images were looked at, by competitor."""

    candidates: tuple[Candidate, ...]
    cells: tuple[Cell, ...]
    n3: int
    images: Mapping[str, int]

    @property
    def short_cells(self) -> tuple[ShortCell, ...]:
        """The cells that came up short."""
        return tuple(
            ShortCell(c.competitor, c.class_id, c.role, c.chosen) for c in self.cells if c.chosen < self.n3
        )


def area_windows(training_maps: Iterable[LabelMap], labels: LabelSet) -> dict[int, Window]:
    """[p_k, q_k] per foreground class: quartiles of its share of all pixels over the training images that hold it.

    Linear-interpolated quantiles (method.md section 2). A class with fewer than `MIN_TRAINING_IMAGES` gets the
    5-95 % range; a class never seen gets (0, 1].
    """
    shares: dict[int, list[float]] = {k: [] for k in labels.foreground_ids}
    for label_map in training_maps:
        counts = np.bincount(label_map.ravel(), minlength=256)
        for k in labels.foreground_ids:
            if counts[k]:
                shares[k].append(float(counts[k]) / label_map.size)
    return {k: _window(found) for k, found in shares.items()}


def select(
    scores: Mapping[str, Iterable[PairScores]],
    windows: Mapping[int, Window],
    n3: int,
    excluded: Collection[str] = (),
    metric: Metric = Metric.MIOU,
    near_duplicates: int | None = None,
) -> Selection:
    """M: for every competitor, class and role the n3 largest d among eligible images, Eq. (2), united.

    `scores` is competitor -> batches in any order, every image once; competitors are read at the same time, by a
    thread each. Eligible: the defender's map holds the class with a share inside its window, and the image is not in
    `excluded` (earlier S, T, vetoes). Ties are broken by image id. |M| <= 2 m c n3.

    With `near_duplicates`, an image whose perceptual hash differs in at most so many bits from one of a better rank in
    the same cell leaves its place to the next; batches may then be gone through several times, so they must not be an
    iterator (ValueError).
    """
    from mad_backend.core.cells import BarredImages, PairCells, rows_of

    if near_duplicates is not None and any(iter(batches) is batches for batches in scores.values()):
        raise ValueError("near-duplicates need scores that can be read again, not an iterator")
    barred = BarredImages(excluded)

    def choose(batches: Iterable[PairScores]) -> tuple[int, dict[Role, PairCells]]:
        pairs = {role: PairCells(windows, n3, near_duplicates) for role in Role}
        while True:
            images = 0
            for batch in batches:
                images += len(batch)
                for role, rows in rows_of(batch, metric, barred):
                    pairs[role].offer(rows)
            settled = [pair.settle() for pair in pairs.values()]
            if all(settled):
                return images, pairs

    with ThreadPoolExecutor(min(len(scores), os.cpu_count() or 1) or 1) as threads:
        found = dict(zip(scores, threads.map(choose, scores.values()), strict=True))
    chosen = {(g, k, role): found[g][1][role].best(k) for g in scores for k in windows for role in Role}
    return _united(chosen, n3, {g: images for g, (images, _) in found.items()})


def _united(
    chosen: Mapping[tuple[str, int, Role], "BestImages"], n3: int, images: Mapping[str, int]
) -> Selection:
    found: dict[str, list[Provenance]] = {}
    cells = []
    for (g, k, role), best in chosen.items():
        for rank, (image_id, d) in enumerate(zip(best.image_ids, best.discrepancies, strict=True), start=1):
            found.setdefault(image_id, []).append(Provenance(g, k, role, rank, d))
        all_d = best.discrepancies
        largest, smallest = (all_d[0], all_d[-1]) if all_d else (None, None)
        cells.append(
            Cell(g, k, role, best.eligible, len(all_d), largest, smallest, best.tied, best.near_duplicates)
        )
    candidates = tuple(Candidate(image_id, tuple(sorted(given))) for image_id, given in sorted(found.items()))
    return Selection(candidates, tuple(cells), n3, images)


def _window(shares: list[float]) -> Window:
    if not shares:
        return Window(0.0, 1.0, 0, is_widened=True)
    widened = len(shares) < MIN_TRAINING_IMAGES
    low, high = np.quantile(shares, WIDENED_QUANTILES if widened else (0.25, 0.75))
    return Window(float(low), float(high), len(shares), widened)
