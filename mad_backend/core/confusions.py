"""What a model gets most wrong on an image: which class it takes for which, on how large an object, and where."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from mad_backend.core.labels import LabelMap, LabelSet, Mask
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.selection import Window

BORDER_CONTACT: Final = 0.25
"""Wrong pixels are at the border where so much of the side of a square of as many pixels touches it: no mere stray."""


class Size(StrEnum):
    """An area share against the class's window [p_k, q_k], its quartiles over S(0): below, within, above."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Position(StrEnum):
    """Where wrong pixels lie; in the centre: their centroid is in the middle half of both height and width."""

    BORDER = "at the border"
    EDGE = "off centre"
    CENTRE = "in the centre"


@dataclass(frozen=True)
class Confusion:
    """The pair of classes with the most wrong pixels on an image: `truth` taken for `predicted`, class ids.

    Shares are of the pixels that people gave a class: `share` of those wrong in this way, `wrong_share` of all that are
    wrong. `size` is that of the truth's class in the human map, or where the truth is the background, of the predicted
    class in the model's map.
    """

    truth: int
    predicted: int
    share: float
    wrong_share: float
    size: Size
    position: Position


def worst_confusion(
    truth: LabelMap, prediction: LabelMap, labels: LabelSet, windows: Mapping[int, Window]
) -> Confusion | None:
    """None where nothing is wrong; pixels that are void in either map are left out. Of equal pairs the lowest ids.

    `windows` is by class id, as `area_windows` gives it, with every foreground class.
    """
    counts = joint_histogram(truth, prediction, len(labels))
    counted, wrong = counts[:-1].sum(), counts[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return None
    true_id, predicted_id = (int(k) for k in np.unravel_index(wrong.argmax(), wrong.shape))
    of, class_id = (truth, true_id) if true_id in labels.foreground_ids else (prediction, predicted_id)
    return Confusion(
        true_id,
        predicted_id,
        float(wrong[true_id, predicted_id] / counted),
        float(wrong.sum() / counted),
        size_of(float((of == class_id).mean()), windows[class_id]),
        position_of((truth == true_id) & (prediction == predicted_id)),
    )


def size_of(area_share: float, window: Window) -> Size:
    """Of a class's share of all pixels of an image, bounds of the window included in `MEDIUM`."""
    if area_share < window.low:
        return Size.SMALL
    return Size.LARGE if area_share > window.high else Size.MEDIUM


def position_of(wrong: Mask) -> Position:
    """Of a mask with one pixel or more."""
    rows, columns = np.nonzero(wrong)
    height, width = wrong.shape
    contact = ((rows == 0) | (rows == height - 1) | (columns == 0) | (columns == width - 1)).sum()
    if contact >= BORDER_CONTACT * math.sqrt(rows.size):
        return Position.BORDER
    off_row, off_column = abs(rows.mean() - (height - 1) / 2), abs(columns.mean() - (width - 1) / 2)
    return Position.CENTRE if off_row <= height / 4 and off_column <= width / 4 else Position.EDGE
