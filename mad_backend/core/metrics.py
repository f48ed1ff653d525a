"""Joint histograms and what follows from them: IoU, mIoU, pixel accuracy.

One matrix serves two purposes. As a *joint histogram* its rows are the target's class and its columns the
competitor's; as a *confusion matrix* its rows are the truth and its columns the prediction.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import LabelMap

JointHistogram: TypeAlias = NDArray[np.int64]
"""(C + 1, C + 1) int64 pixel counts; the last row and column are void."""
ConfusionMatrix: TypeAlias = NDArray[np.int64]
"""(C, C) or (C, C + 1) int64 pixel counts; a last, extra column holds what was predicted as void."""


def joint_histogram(rows: LabelMap, columns: LabelMap, classes: int) -> JointHistogram:
    """Counts of every pair of classes over the pixels of two label maps of one shape.

    Void (any id >= `classes`) has the last row and column, so that areas stay exact. Raises ValueError when the
    shapes differ.
    """
    if rows.shape != columns.shape:
        raise ValueError(
            f"label maps of shapes {rows.shape} and {columns.shape} cannot be compared pixel by pixel"
        )
    from mad_backend.core.kernels import count_pairs

    joint = np.zeros((classes + 1, classes + 1), np.int64)
    count_pairs(np.ascontiguousarray(rows).ravel(), np.ascontiguousarray(columns).ravel(), joint)
    return joint


def confusion_matrix(truth: LabelMap, prediction: LabelMap, classes: int) -> ConfusionMatrix:
    """(C, C + 1): rows truth without void, columns prediction; a void prediction counts as a miss, never as a hit."""
    return joint_histogram(truth, prediction, classes)[:-1]


def intersections_and_unions(matrix: ConfusionMatrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(..., C) pixels in both and (..., C) pixels in either of a class's row and column."""
    square = matrix[..., : matrix.shape[-2]]
    intersections = np.diagonal(square, axis1=-2, axis2=-1)
    return intersections, matrix.sum(-1) + square.sum(-2) - intersections


def iou_per_class(matrix: ConfusionMatrix) -> NDArray[np.float64]:
    """(..., C) float64 intersection over union; NaN for a class absent from rows and columns alike."""
    intersections, unions = intersections_and_unions(matrix)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(unions > 0, intersections.astype(np.float64) / unions, np.nan)


def mean_iou(matrix: ConfusionMatrix, classes: Sequence[int] | None = None) -> float:
    """Mean IoU over the classes present in rows or columns; NaN when none is.

    Of one image's matrix this is the image mIoU, of a sum over images the dataset mIoU. `classes` restricts the mean
    to those ids, where others are too rare for a stable IoU.
    """
    iou = iou_per_class(matrix)
    if classes is not None:
        iou = iou[list(classes)]
    present = ~np.isnan(iou)
    return float(iou[present].mean()) if present.any() else float("nan")


def pixel_accuracy(matrix: ConfusionMatrix) -> float:
    """Share of pixels on which rows and columns agree; NaN when the matrix is empty."""
    total = int(matrix.sum())
    return float(np.trace(matrix)) / total if total else float("nan")


def dataset_miou(matrices: NDArray[np.int64], classes: Sequence[int] | None = None) -> float:
    """mIoU of the pooled confusion matrix of (n, C, C + 1) per-image matrices (method.md section 7, headline)."""
    return mean_iou(matrices.sum(axis=0), classes)


def image_miou(matrices: NDArray[np.int64], classes: Sequence[int] | None = None) -> float:
    """Mean over images of the image mIoU; images without a counted pixel of `classes` are left out."""
    values = np.array([mean_iou(m, classes) for m in matrices])
    counted = ~np.isnan(values)
    return float(values[counted].mean()) if counted.any() else float("nan")
