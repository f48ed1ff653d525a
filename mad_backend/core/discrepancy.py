"""How much two models disagree on one image, Eq. (1), and how large each class is, both from one histogram."""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import JointHistogram, mean_iou, pixel_accuracy, without_void
from mad_backend.core.records import Metric, Role


def discrepancy(joint: JointHistogram, metric: Metric) -> float:
    """How much two models disagree on one image, Eq. (1): 1 - image mIoU, or 1 - pixel agreement.

    In [0, 1]; 0.0 when no pixel is left once the void of either map is out.
    """
    counted = without_void(joint)
    if not counted.any():
        return 0.0
    match metric:
        case Metric.MIOU:
            return 1.0 - mean_iou(counted)
        case Metric.PIXEL_AGREEMENT:
            return 1.0 - pixel_accuracy(counted)
        case _:
            assert_never(metric)


def area_shares(joint: JointHistogram, role: Role) -> NDArray[np.float64]:
    """(C,) share of each class among all pixels of the image, under the map of the model in `role` (Sec. 3.1)."""
    axis = 1 if role is Role.TARGET else 0
    areas: NDArray[np.int64] = joint.sum(axis=axis)[:-1]
    return areas / max(int(joint.sum()), 1)
