"""What selection needs to know of one target and one competitor on many images, as columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import JointHistogram


@dataclass(frozen=True)
class ClassAreas:
    """The classes that one model's maps of n images hold, and how many pixels of each: sparse rows.

    Image i holds `class_ids[offsets[i]:offsets[i + 1]]` (ascending, void left out), with `pixels` of the same slice.
    """

    offsets: NDArray[np.int32]
    """(n + 1,) int32"""
    class_ids: NDArray[np.uint8]
    pixels: NDArray[np.uint32]


@dataclass(frozen=True)
class PairScores:
    """n images of one (target, competitor), in the order of `image_ids`; all arrays are (n,).

    `digests` tells which content of an image was compared, `looks` is its perceptual hash; `pixels` counts void too.
    """

    image_ids: Sequence[str]
    digests: NDArray[np.uint64]
    looks: NDArray[np.uint64]
    pixels: NDArray[np.uint32]
    miou: NDArray[np.float64]
    """d = 1 - image mIoU, Eq. (1)"""
    pixel_agreement: NDArray[np.float64]
    """d = 1 - pixel agreement"""
    target: ClassAreas
    competitor: ClassAreas

    def __len__(self) -> int:
        return len(self.image_ids)


def scores_of(
    image_ids: Sequence[str],
    digests: NDArray[np.uint64],
    looks: NDArray[np.uint64],
    joints: Iterable[JointHistogram],
) -> PairScores:
    """From one (C + 1, C + 1) joint histogram an image: both distances of Eq. (1) and the areas under either map.

    Each histogram is done with before the next is asked for.
    """
    from mad_backend.core.kernels import distances

    n = len(image_ids)
    both, pixels = np.zeros((n, 2), np.float64), np.zeros(n, np.uint32)
    areas = np.zeros((2, n, 0), np.uint32)
    for i, joint in enumerate(joints):
        if i == 0:
            areas = np.zeros((2, n, len(joint) - 1), np.uint32)
        both[i] = distances(joint, areas[0, i], areas[1, i])
        pixels[i] = joint.sum()
    target, competitor = (_sparse(dense) for dense in areas)
    return PairScores(
        image_ids, digests, looks, pixels, both[:, 0].copy(), both[:, 1].copy(), target, competitor
    )


def _sparse(areas: NDArray[np.uint32]) -> ClassAreas:
    """From (n, C) pixel counts."""
    image, class_ids = np.nonzero(areas)
    offsets = np.zeros(len(areas) + 1, np.int32)
    offsets[1:] = np.cumsum(np.bincount(image, minlength=len(areas)))
    return ClassAreas(offsets, class_ids.astype(np.uint8), areas[image, class_ids])
