"""Which pixels a polygon covers."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import Mask

EDGES_AT_ONCE: Final = 256
"""Bounds the memory: each edge may cross every row."""


def fill_polygon(points: NDArray[np.float64], height: int, width: int) -> Mask:
    """(height, width) bool: even-odd fill of (n, 2) points (x, y) in pixels; a pixel is in if its centre is.

    The last point is joined to the first; of a centre on an edge, the pixel right of the edge or below it is in.
    Pillow's `ImageDraw` cuts points to whole pixels and paints the outline too, which makes every region a pixel
    larger; here neighbours that share an edge share no pixel.
    """
    crossings = np.zeros((height, width + 1), np.uint8)
    following = np.roll(points, -1, axis=0)
    for start in range(0, len(points), EDGES_AT_ONCE):
        block = slice(start, start + EDGES_AT_ONCE)
        rows, columns = _crossings(points[block], following[block], height, width)
        np.add.at(crossings, (rows, columns), 1)  # where uint8 overflows, whether it is odd stays right
    filled: Mask = (np.bitwise_xor.accumulate(crossings, axis=1)[:, :width] & 1).astype(np.bool_)
    return filled


def _crossings(
    starts: NDArray[np.float64], ends: NDArray[np.float64], height: int, width: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows whose line of centres an edge crosses, and the first column whose centre is not left of the crossing."""
    lows, highs = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.intp) for y in (lows, highs))
    counts = last - first
    edges = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(len(edges)) - (np.cumsum(counts) - counts - first)[edges]
    (x0, y0), (x1, y1) = starts[edges].T, ends[edges].T
    x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
    return rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.intp)
