"""M: the images on which target and competitors disagree most, class by class (Sec. 3.1, Eq. 2).

Algorithm 1, lines 6-15.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Candidate, Provenance, Role

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

    def holds(self, share: float) -> bool:
        return self.low <= share <= self.high


@dataclass(frozen=True)
class Score:
    """What selection needs of one (image, competitor): d, and (C,) area shares under either model's map."""

    image_id: str
    competitor: str
    discrepancy: float
    target_shares: NDArray[np.float64]
    competitor_shares: NDArray[np.float64]


@dataclass(frozen=True)
class ShortCell:
    """A cell of Eq. (2) that had fewer than n3 eligible images."""

    competitor: str
    class_id: int
    role: Role
    found: int


@dataclass(frozen=True)
class Selection:
    """M with provenance, by image id, and the cells that came up short."""

    candidates: tuple[Candidate, ...]
    short_cells: tuple[ShortCell, ...]


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
    scores: Iterable[Score],
    windows: Mapping[int, Window],
    competitors: Sequence[str],
    n3: int,
    excluded: Collection[str] = (),
) -> Selection:
    """M: for every competitor, class and role the n3 largest d among eligible images, Eq. (2), united.

    Eligible: the defender's map holds the class with a share inside its window, and the image is not in `excluded`
    (earlier S, T, vetoes). Ties are broken by image id. |M| <= 2 m c n3.
    """
    barred = frozenset(excluded)
    cells: dict[tuple[str, int, Role], list[tuple[float, str]]] = {
        (g, k, role): [] for g in competitors for k in windows for role in Role
    }
    for score in scores:
        if score.image_id in barred:
            continue
        for role, shares in ((Role.TARGET, score.target_shares), (Role.COMPETITOR, score.competitor_shares)):
            for k, window in windows.items():
                if shares[k] > 0 and window.holds(float(shares[k])):
                    cells[score.competitor, k, role].append((-score.discrepancy, score.image_id))
    found: dict[str, list[Provenance]] = {}
    short = []
    for (competitor, k, role), eligible in cells.items():
        top = sorted(eligible)[:n3]
        if len(top) < n3:
            short.append(ShortCell(competitor, k, role, len(top)))
        for rank, (negative, image_id) in enumerate(top, start=1):
            found.setdefault(image_id, []).append(Provenance(competitor, k, role, rank, -negative))
    candidates = tuple(Candidate(image_id, tuple(sorted(cells))) for image_id, cells in sorted(found.items()))
    return Selection(candidates, tuple(short))


def _window(shares: list[float]) -> Window:
    if not shares:
        return Window(0.0, 1.0, 0, is_widened=True)
    widened = len(shares) < MIN_TRAINING_IMAGES
    low, high = np.quantile(shares, WIDENED_QUANTILES if widened else (0.25, 0.75))
    return Window(float(low), float(high), len(shares), widened)
