"""How much two models disagree on one image, Eq. (1)."""

from typing import assert_never

import numpy as np

from mad_backend.core.metrics import JointHistogram
from mad_backend.core.records import Metric


def discrepancy(joint: JointHistogram, metric: Metric) -> float:
    """How much two models disagree on one image, Eq. (1): 1 - image mIoU, or 1 - pixel agreement.

    In [0, 1]; 0.0 when no pixel is left once the void of either map is out.
    """
    from mad_backend.core.kernels import distances

    areas = np.empty((2, len(joint) - 1), np.uint32)
    miou, pixel_agreement = distances(joint, *areas)
    match metric:
        case Metric.MIOU:
            return float(miou)
        case Metric.PIXEL_AGREEMENT:
            return float(pixel_agreement)
        case _:
            assert_never(metric)
