"""The even-odd rule at the centres of pixels, against a count of crossings for every pixel."""

import numpy as np
import pytest

from mad_backend.core.polygon_fill import EDGES_AT_ONCE, fill_polygon


@pytest.mark.parametrize("corners", [1, 2, 3, 9, EDGES_AT_ONCE, EDGES_AT_ONCE + 1, 3 * EDGES_AT_ONCE])
@pytest.mark.parametrize("step", [0.0, 0.5])  # 0.5: corners and edges lie on centres
def test_a_pixel_is_in_if_a_ray_from_its_centre_crosses_the_outline_an_odd_number_of_times(
    corners: int, step: float
) -> None:
    points = np.random.default_rng(corners).random((corners, 2)) * 40 - 8
    points = np.round(points / step) * step if step else points
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    x, y = np.arange(27)[:, None] + 0.5, np.arange(23)[:, None, None] + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x0 + (y - y0) * ((x1 - x0) / (y1 - y0))
    wanted = (((y0 <= y) != (y1 <= y)) & (x >= at)).sum(axis=2) % 2 == 1
    np.testing.assert_array_equal(fill_polygon(points, 23, 27), wanted)
