"""Which pixels a COCO segmentation covers: polygons, or run lengths, plain or compressed."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import Mask
from mad_backend.core.polygon_fill import fill_polygon
from mad_backend.errors import ImageError

Window: TypeAlias = tuple[slice, slice]
"""Rows and columns of an image."""


def covered(segmentation: Any, height: int, width: int, told: str) -> tuple[Window, Mask]:
    """A window of the (height, width) image, and a bool mask of the window's size.

    Polygons are [[x0, y0, x1, y1, ...], ...] in pixels, (0, 0) the image's corner: a pixel is covered if its centre is
    inside of one of them, by the even-odd rule (pycocotools, which rounds on a grid of fifths of a pixel, differs by
    pixels of the rim). Run lengths are {"size": [h, w], "counts": [...] or "..."}. Raises ImageError, which begins with
    `told`.
    """
    if isinstance(segmentation, dict):
        return (slice(0, height), slice(0, width)), _of_runs(segmentation, height, width, told)
    if not isinstance(segmentation, list):
        raise ImageError(f"{told}: wanted a segmentation (polygons or run lengths), got {segmentation!r:.60}")
    rings = [_ring(numbers, told) for numbers in segmentation]
    if not rings:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.bool_)
    points = np.concatenate(rings)
    left, top = np.clip(np.floor(points.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)), 0, (width, height)).astype(int)
    mask = np.zeros((bottom - top, right - left), np.bool_)
    for ring in rings:
        mask |= fill_polygon(ring - (left, top), *mask.shape)
    return (slice(top, bottom), slice(left, right)), mask


def _ring(numbers: Any, told: str) -> NDArray[np.float64]:
    """(n, 2) float64 points."""
    try:
        ring = np.array(numbers, np.float64)
    except (TypeError, ValueError):
        ring = np.empty(0)
    if ring.ndim != 1 or not ring.size or ring.size % 2 or not (np.abs(ring) < 1e9).all():
        raise ImageError(f"{told}: wanted a polygon [x0, y0, x1, y1, ...], got {numbers!r:.60}")
    return ring.reshape(-1, 2)


def _of_runs(segmentation: dict[str, Any], height: int, width: int, told: str) -> Mask:
    """Runs go down the columns, the first one is of pixels that are not covered."""
    counts = segmentation.get("counts")
    if segmentation.get("size") != [height, width]:
        raise ImageError(
            f"{told}: its run lengths are for (height, width) {segmentation.get('size')!r:.40}, the image has "
            f"[{height}, {width}]"
        )
    try:
        runs = _decompressed(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError(f"{told}: its run lengths are damaged: {error}") from None
    if runs.ndim != 1 or (runs < 0).any() or (runs > height * width).any() or runs.sum() != height * width:
        raise ImageError(
            f"{told}: its run lengths are damaged: they do not add up to {height * width} pixels"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompressed(text: str) -> NDArray[np.int64]:
    """Run lengths of COCO's compressed text (`rleToString` of cocoapi/common/maskApi.c).

    Five bits a character, 48 added, the lowest first; bit 5 says that more follow, bit 4 of the last one is the sign.
    From the fourth number on they are differences to the number before the last.
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("it is no text of compressed run lengths")
    is_last = codes & 32 == 0
    lasts = np.flatnonzero(is_last)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    lengths = lasts - firsts + 1
    if lengths.max() > 12:
        raise ValueError("a number of more than 60 bits")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(firsts, lengths))
    numbers = np.add.reduceat((codes & 31) << shifts, firsts)
    numbers -= np.where(codes[lasts] & 16, np.int64(1) << (5 * lengths), 0)
    for parity in (1, 2):
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    return numbers
