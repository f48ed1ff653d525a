"""Pixels as a network's input: normalised, padded, channels last, in one pass.

Imported late by its users, since numba takes a second to import. Compiled code is cached on disk, and the GIL is
released while it runs.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mad_backend.core.labels import RgbImage


def normalised(
    contents: Sequence[RgbImage],
    size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    is_bgr: bool = False,
) -> NDArray[np.float32]:
    """(n, H, W, 3) float32 of the given size: (value - mean) / std, 0 right of and below each content.

    `mean` and `std` are of 0..255 values and in the order of the network's channels, which are BGR where `is_bgr`.
    """
    batch = np.zeros((len(contents), *size, 3), np.float32)
    for one, content in zip(batch, contents, strict=True):
        height, width = content.shape[:2]
        pixels = np.ascontiguousarray(content[:, :, ::-1] if is_bgr else content).reshape(height, -1)
        middles, scales = (np.tile(np.asarray(v, np.float32), width) for v in (mean, std))
        _normalise(pixels, middles, scales, one.reshape(size[0], -1))
    return batch


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _normalise(
    pixels: NDArray[np.uint8],
    middles: NDArray[np.float32],
    scales: NDArray[np.float32],
    values: NDArray[np.float32],
) -> None:
    """Fills the left of each row of `values` from (H, 3 W) pixels.

    Vector instructions take many at once, since mean and std are rows too and nothing looks for a division by zero.
    """
    for y in range(pixels.shape[0]):
        row, out = pixels[y], values[y, : pixels.shape[1]]
        for x in range(row.size):
            out[x] = (np.float32(row[x]) - middles[x]) / scales[x]
