"""Failures in groups: by what is taken for what, and by appearance; and how each group fares from round to round."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.acquisition import k_center, nearest
from mad_backend.core.confusions import Confusion, Position, Size

MAX_CLUSTERS: Final = 8
"""More groups than a team can look through are none."""
_STEPS: Final = 100


@dataclass(frozen=True)
class FailedImage:
    """A labelled image of S or T ("S(1)", "T(1)") on which `target`, the version that found it, is wrong.

    `found` is the image mIoU of that version, `miou` that of every version that was measured on the set.
    """

    image_id: str
    image_set: str
    target: str
    confusion: Confusion
    found: float
    miou: Mapping[str, float]


@dataclass(frozen=True)
class FailureGroup:
    """Images of one kind, most wrong first; `truth` taken for `predicted` is the pair of most of them, class ids.

    `example` is the image id of a typical one: of an appearance the one nearest to the mean, else the most wrong.
    """

    truth: int
    predicted: int
    example: str
    members: tuple[FailedImage, ...]

    @property
    def area(self) -> float:
        """Wrong area of the members' worst pairs, each image counted as 1."""
        return sum(m.confusion.share for m in self.members)

    @property
    def kinds(self) -> dict[tuple[Size, Position], int]:
        """Images by size and position, most frequent first."""
        counts = Counter((m.confusion.size, m.confusion.position) for m in self.members)
        return {kind: counts[kind] for kind in sorted(counts, key=lambda kind: (-counts[kind], kind))}


@dataclass(frozen=True)
class Trend:
    """A group in one S or T: how many images, and what share that is of the images of M that were rated.

    `found` and `miou` (by version) are means of image mIoUs; NaN where there is no image or nothing was measured.
    """

    image_set: str
    images: int
    rated_share: float
    found: float
    miou: Mapping[str, float]


def by_confusion(images: Iterable[FailedImage]) -> tuple[FailureGroup, ...]:
    """A group for every pair (truth, predicted) of worst confusions, largest wrong area first."""
    members: dict[tuple[int, int], list[FailedImage]] = {}
    for image in images:
        members.setdefault((image.confusion.truth, image.confusion.predicted), []).append(image)
    groups = []
    for (truth, predicted), found in members.items():
        ordered = _most_wrong_first(found)
        groups.append(FailureGroup(truth, predicted, ordered[0].image_id, ordered))
    return _largest_first(groups)


def by_appearance(images: Sequence[FailedImage], embeddings: NDArray[np.float32]) -> tuple[FailureGroup, ...]:
    """Clusters of (n, d) `embeddings`, largest wrong area first; about sqrt(n / 2) of them, at most `MAX_CLUSTERS`."""
    count = min(MAX_CLUSTERS, max(1, round(math.sqrt(len(images) / 2))))
    groups = []
    for rows in clusters(embeddings, count):
        found = [images[row] for row in rows]
        pairs = Counter((m.confusion.truth, m.confusion.predicted) for m in found)
        truth, predicted = min(pairs, key=lambda pair: (-pairs[pair], pair))
        (middle,), _ = nearest(embeddings[rows].mean(axis=0), embeddings[rows], 1)
        groups.append(FailureGroup(truth, predicted, found[middle].image_id, _most_wrong_first(found)))
    return _largest_first(groups)


def clusters(embeddings: NDArray[np.float32], count: int) -> list[NDArray[np.int64]]:
    """Rows of (n, d) `embeddings` in at most `count` clusters by k-means (Lloyd 1982), none of them empty.

    Starts from the rows that `k_center` takes, so the same input gives the same clusters. Ties: the first cluster.
    """
    nothing = np.zeros((0, embeddings.shape[1]), np.float32)
    centers = embeddings[k_center(embeddings, nothing, count)].astype(np.float64)
    own = np.full(len(embeddings), -1)
    for _ in range(_STEPS):
        before = own
        # Squared distances less the row's own length, which is the same for every center.
        own = ((centers**2).sum(axis=1) - 2 * embeddings @ centers.T).argmin(axis=1)
        if (own == before).all():
            break
        for k in np.unique(own):
            centers[k] = embeddings[own == k].mean(axis=0)
    return [np.flatnonzero(own == k) for k in np.unique(own)]


def trends(group: FailureGroup, rated: Mapping[str, int], versions: Sequence[str]) -> tuple[Trend, ...]:
    """One for each image set in `rated`, in its order: image set -> images of M of its round that were rated."""
    found = []
    for image_set, total in rated.items():
        own = [m for m in group.members if m.image_set == image_set]
        share = len(own) / total if total else math.nan
        miou = {v: mean_miou(m.miou.get(v, math.nan) for m in own) for v in versions}
        found.append(Trend(image_set, len(own), share, mean_miou(m.found for m in own), miou))
    return tuple(found)


def mean_miou(values: Iterable[float]) -> float:
    """Mean of image mIoUs without those of images that have no counted class (NaN); NaN where none is left."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _most_wrong_first(images: Iterable[FailedImage]) -> tuple[FailedImage, ...]:
    return tuple(sorted(images, key=lambda m: (-m.confusion.share, m.image_id)))


def _largest_first(groups: Iterable[FailureGroup]) -> tuple[FailureGroup, ...]:
    return tuple(sorted(groups, key=lambda g: (-g.area, g.truth, g.predicted, g.example)))
