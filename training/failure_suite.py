"""The failure suite: images of S and T that a served version once fixed, and whether a new one breaks them again.

An image of round r failed on that round's target. It is *fixed* by a version of round r or later that was ever served
and has an image mIoU more than the tolerance above that target's. Its *level* is the best that any of these reached.
A new version *breaks* it when it falls more than the tolerance below that level. Where the version served now is that
far below it as well, since ops let it pass, the served version's own mIoU stands in the level's place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import iou_per_class


@dataclass(frozen=True)
class Tried:
    """The labelled images of one S or T, and the image mIoU (n,) that versions have on them.

    `failed` is of the round's target, `fixers` of the versions that were served after it, oldest first; `served` of
    what is served now, `now` of the new version.
    """

    image_set: str
    image_ids: Sequence[str]
    failed: NDArray[np.float64]
    fixers: Mapping[str, NDArray[np.float64]]
    served: NDArray[np.float64]
    now: NDArray[np.float64]


@dataclass(frozen=True)
class SuiteImage:
    """An image that was once fixed: image mIoUs (`drawn_miou`) when it failed, when it was best, served now, new."""

    image_id: str
    image_set: str
    failed: float
    fixed_by: str
    level: float
    served: float
    now: float
    is_broken: bool


def drawn_miou(matrices: NDArray[np.int64], classes: Sequence[int] | None = None) -> NDArray[np.float64]:
    """(n,) mean IoU of each image over the classes (among `classes`) that people drew on it; NaN where there is none.

    The usual image mIoU also averages over classes that are only predicted, each with an IoU of 0: a single stray pixel
    would take a third from an image of two classes. Here it counts as what it is, a pixel missed.
    """
    iou = iou_per_class(matrices)
    drawn = matrices.sum(axis=-1) > 0
    if classes is not None:
        counted = np.zeros(drawn.shape[1], np.bool_)
        counted[list(classes)] = True
        drawn &= counted
    number = drawn.sum(axis=1)
    return np.where(number > 0, np.where(drawn, iou, 0).sum(axis=1) / np.maximum(number, 1), np.nan)


def failure_suite(tried: Sequence[Tried], tolerance: float) -> tuple[SuiteImage, ...]:
    """Every image that was ever fixed, by set and image id; images that nobody fixed, or without any class, are not."""
    return tuple(
        image
        for one in tried
        for _, place in sorted((image_id, n) for n, image_id in enumerate(one.image_ids))
        if (image := _judged(one, place, tolerance)) is not None
    )


def _judged(tried: Tried, place: int, tolerance: float) -> SuiteImage | None:
    failed = float(tried.failed[place])
    reached = {version: float(values[place]) for version, values in tried.fixers.items()}
    fixed = {version: value for version, value in reached.items() if value > failed + tolerance}
    if not fixed:
        return None
    fixed_by = max(fixed, key=lambda version: fixed[version])
    level, served, now = fixed[fixed_by], float(tried.served[place]), float(tried.now[place])
    wanted = level if served >= level - tolerance else served
    return SuiteImage(
        tried.image_ids[place],
        tried.image_set,
        failed,
        fixed_by,
        level,
        served,
        now,
        # Not "now < wanted - tolerance": what has no value has not held.
        is_broken=not now >= wanted - tolerance,
    )
