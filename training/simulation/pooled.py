"""All seeds' images of a set together: one interval over images, beside the one over seeds (`results.Spread`)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.statistics import Estimate, estimate_difference
from training.simulation.records import Trial

Part = tuple[Sequence[str], NDArray[np.int64], NDArray[np.int64]]
"""Image ids (n) under one seed, and the confusion matrices (n, C, C + 1) of the model asked about and of another."""


def pooled_difference(parts: Sequence[Part], counted: Sequence[int] | None) -> Estimate:
    """Paired difference of dataset mIoU on the images of all seeds, the interval over images.

    An image that several seeds show has its matrices summed, so that it is left out of the jackknife as a whole: it is
    one image, and no more is known for its being measured twice. (Dataset mIoU is a function of summed matrices.) What
    seeds change beside images, training above all, is within the interval where it differs from image to image only.
    """
    after: dict[str, NDArray[np.int64]] = {}
    before: dict[str, NDArray[np.int64]] = {}
    for images, own, other in parts:
        for image, new, old in zip(images, own, other, strict=True):
            after[image] = after[image] + new if image in after else new
            before[image] = before[image] + old if image in before else old
    order = sorted(after)
    return estimate_difference(
        np.stack([after[i] for i in order]), np.stack([before[i] for i in order]), counted
    )


def gain_over_images(
    trials: Sequence[Trial], number: int, image_set: str, counted: Sequence[int] | None
) -> Estimate:
    """f(`number`) - f(0) of one strategy."""
    return pooled_difference([_part(t, t, number, 0, image_set) for t in trials], counted)


def lead_over_images(
    trials: Sequence[Trial],
    others: Sequence[Trial],
    number: int,
    image_set: str,
    counted: Sequence[int] | None,
) -> Estimate:
    """f(`number`) of one strategy less that of another, whose trials come in the same order of seeds.

    For image sets that are the same under both.
    """
    pairs = zip(trials, others, strict=True)
    return pooled_difference([_part(a, b, number, number, image_set) for a, b in pairs], counted)


def _part(own: Trial, other: Trial, number: int, other_number: int, image_set: str) -> Part:
    return (
        own.record.sets[image_set],
        own.matrices[own.record.versions[number], image_set],
        other.matrices[other.record.versions[other_number], image_set],
    )
