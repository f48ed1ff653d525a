"""Polygons, rectangles and ellipses of Label Studio, whose numbers are percent of the image, as masks."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from mad_backend.core.labels import Mask
from mad_backend.core.polygon_fill import fill_polygon
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.results import Region, field_of

_FARTHEST: Final = 1e6
"""Percent: a shape may reach out of its image, but numbers beyond this are damage."""


def polygon(value: Region, height: int, width: int) -> Mask:
    """(height, width) bool mask of `value["points"]`, [[x, y], ...]; the last point is joined to the first.

    Raises LabelFormatError when there are not at least three points of two numbers each.
    """
    points = field_of(value, "points")
    if not (isinstance(points, list) and len(points) >= 3):
        raise LabelFormatError(f"polygon: wanted three points or more, came {str(points)[:40]!r}")
    numbers = [_numbers(point) for point in points]
    return fill_polygon(np.array(numbers) * (width / 100, height / 100), height, width)


def rectangle(value: Region, height: int, width: int) -> Mask:
    """(height, width) bool mask of `value`'s x, y, width, height, turned clockwise about (x, y) by `rotation` degrees.

    Raises LabelFormatError when one of them is no number.
    """
    x, y, w, h = _numbers([field_of(value, key) for key in ("x", "y", "width", "height")], 4)
    (degrees,) = _numbers([field_of(value, "rotation") or 0], 1)
    # Turned in pixels, not in percent: the sides of the image may differ.
    x, w, y, h = x * width / 100, w * width / 100, y * height / 100, h * height / 100
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)]
    turned = [(x + dx * cosine - dy * sine, y + dx * sine + dy * cosine) for dx, dy in corners]
    return fill_polygon(np.array(turned), height, width)


def ellipse(value: Region, height: int, width: int) -> Mask:
    """(height, width) bool mask of `value`'s centre x, y, radiusX, radiusY, turned clockwise by `rotation` degrees.

    A pixel is in if its centre is. Raises LabelFormatError when one of them is no number.
    """
    x, y, a, b = _numbers([field_of(value, key) for key in ("x", "y", "radiusX", "radiusY")], 4)
    (degrees,) = _numbers([field_of(value, "rotation") or 0], 1)
    x, a, y, b = x * width / 100, a * width / 100, y * height / 100, b * height / 100
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    dx, dy = np.arange(width) + 0.5 - x, np.arange(height)[:, None] + 0.5 - y
    along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
    # Multiplied out, because a radius may be 0.
    inside: Mask = (along * b) ** 2 + (across * a) ** 2 <= (a * b) ** 2
    return inside if a and b else np.zeros((height, width), np.bool_)


def _numbers(values: object, wanted: int = 2) -> Sequence[float]:
    if (
        isinstance(values, list)
        and len(values) == wanted
        and all(isinstance(v, int | float) and abs(v) <= _FARTHEST for v in values)
    ):
        return [float(v) for v in values]
    raise LabelFormatError(f"shape: wanted {wanted} numbers (percent), came {str(values)[:60]!r}")
