"""The winning class of every pixel of bilinearly upsampled logits, without upsampling them.

Between four neighbouring logit pixels, a *cell*, bilinear values are convex combinations of the four corners. A class
that wins at all four wins everywhere between them, so such a cell is filled; most are. Only cells that a class border
crosses are interpolated, and there only the classes that can win at all.

Imported late by its users, since numba takes a second to import. Compiled code is cached on disk, and the GIL is
released while it runs.
"""

from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

Logits: TypeAlias = NDArray[np.float32]
"""(C, h, w) float32 of any strides; fastest as planes in a row, or as (h, w, C), which channels-last networks give."""
ClassIds: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(rows, columns) ids of a model's own outputs: uint8 up to 256 of them, else uint16."""


class Taps(NamedTuple):
    """Bilinear interpolation along one axis: value i = (1 - weight[i]) * v[low[i]] + weight[i] * v[high[i]].

    (n,) each, `low` and `high` int32, `weight` float32 in [0, 1]. Cell j is the run of equal `low` that begins at
    starts[j]; (cells + 1,) int32, the last is n.
    """

    low: NDArray[np.int32]
    high: NDArray[np.int32]
    weight: NDArray[np.float32]
    starts: NDArray[np.int32]


def choose_classes(
    logits: Logits,
    size: tuple[int, int],
    region: tuple[int, int],
    align_corners: bool,
    shape: tuple[int, int] | None = None,
) -> ClassIds:
    """Argmax over classes of `logits` upsampled to the canvas `size`, in its top left `region` only.

    Equals torch's `interpolate(mode="bilinear", align_corners=...)` and argmax, the first of equal maxima, except where
    two classes differ by no more than rounding. Any scale, smaller too. `shape`, where given, is what the region is
    then resampled to (half-pixel centres): logits are read at those places directly. Around a NaN the class is
    arbitrary.
    """
    outputs, height, width = logits.shape
    ids = np.uint8 if outputs <= 256 else np.uint16
    logits = np.asarray(logits, np.float32)
    by_pixel = logits.transpose(1, 2, 0)
    winner = np.empty((height, width), ids)
    if by_pixel.flags.c_contiguous:
        _choose_by_pixel(by_pixel.reshape(-1, outputs), winner.reshape(-1))
    else:
        logits = np.ascontiguousarray(logits)
        by_pixel = logits.transpose(1, 2, 0)
        _choose_by_plane(logits.reshape(outputs, -1), winner.reshape(-1))
    if size == (height, width) and shape in (None, region):
        return winner[: region[0], : region[1]]
    shape = shape or region
    chosen = np.empty(shape, ids)
    rows = taps(height, size[0], region[0], shape[0], align_corners)
    columns = taps(width, size[1], region[1], shape[1], align_corners)
    _fill(by_pixel, winner, rows, columns, chosen)
    return chosen


@lru_cache(maxsize=256)
def taps(count: int, canvas: int, region: int, outputs: int, align_corners: bool) -> Taps:
    """Where `outputs` pixels spread over the first `region` pixels of a `canvas` lie between `count` logits.

    The arithmetic is float32 in the order of ATen's UpSample.h, so that positions equal torch's to the bit.
    """
    half = np.float32(0.5)
    at = np.arange(outputs, dtype=np.float32)
    if outputs != region:
        at = np.clip((at + half) * np.float32(region / outputs) - half, 0, np.float32(region - 1))
    if align_corners:
        source = at * (np.float32(count - 1) / np.float32(max(1, canvas - 1)))
    else:
        source = np.maximum((at + half) * (np.float32(count) / np.float32(canvas)) - half, np.float32(0))
    low = np.minimum(source.astype(np.int32), count - 1)
    weight = np.clip(source - low.astype(np.float32), 0, np.float32(1))
    starts = np.append(np.flatnonzero(np.diff(low, prepend=-1)), outputs).astype(np.int32)
    return Taps(low, np.minimum(low + 1, count - 1), weight, starts)


@njit(cache=True, nogil=True)
def _choose_by_plane(planes: Logits, winner: ClassIds) -> None:
    """Argmax of (C, n), block by block, so that the running maxima stay in the first-level cache."""
    outputs, pixels = planes.shape
    top = np.empty(1024, np.float32)
    for begin in range(0, pixels, 1024):
        ids = winner[begin : begin + 1024]
        for k in range(outputs):
            plane = planes[k, begin : begin + 1024]
            for x in range(ids.size):
                better = k == 0 or plane[x] > top[x]
                top[x] = plane[x] if better else top[x]
                ids[x] = k if better else ids[x]


@njit(cache=True, nogil=True)
def _choose_by_pixel(pixels: Logits, winner: ClassIds) -> None:
    """Argmax of (n, C)."""
    for x in range(pixels.shape[0]):
        logits = pixels[x]
        best = 0
        for k in range(1, logits.size):
            if logits[k] > logits[best]:
                best = k
        winner[x] = best


@njit(cache=True, nogil=True)
def _fill(logits: Logits, winner: ClassIds, rows: Taps, columns: Taps, chosen: ClassIds) -> None:
    """Fills runs of cells whose four corners agree, and interpolates the others; `logits` are (h, w, C)."""
    corners = np.empty((4, logits.shape[2]), np.float32)
    candidates = np.empty(logits.shape[2], np.int32)
    top = np.empty(chosen.shape[1], np.float32)
    left, right = columns.low[columns.starts[:-1]], columns.high[columns.starts[:-1]]
    for i in range(rows.starts.size - 1):
        first, last = rows.starts[i], rows.starts[i + 1]
        upper, lower = rows.low[first], rows.high[first]
        above, below = winner[upper], winner[lower]
        j = 0
        while j < left.size:
            begin, k, after = columns.starts[j], above[left[j]], j
            while (
                after < left.size
                and above[left[after]] == k
                and above[right[after]] == k
                and below[left[after]] == k
                and below[right[after]] == k
            ):
                after += 1
            if after > j:
                end = columns.starts[after]
                for y in range(first, last):
                    chosen[y, begin:end] = k
                j = after
                continue
            end = columns.starts[j + 1]
            for k in range(candidates.size):
                corners[0, k], corners[1, k] = logits[upper, left[j], k], logits[upper, right[j], k]
                corners[2, k], corners[3, k] = logits[lower, left[j], k], logits[lower, right[j], k]
            winners = above[left[j]], above[right[j]], below[left[j]], below[right[j]]
            count = _find_candidates(corners, winners, candidates)
            down, across = rows.weight[first:last], columns.weight[begin:end]
            _interpolate(corners, candidates[:count], down, across, top, chosen[first:last, begin:end])
            j += 1


# Inlined, because cells of 4 x 4 pixels are so small that calls would take a third of the time.
@njit(cache=True, nogil=True, inline="always")
def _find_candidates(corners: Logits, winners: tuple[int, ...], candidates: NDArray[np.int32]) -> int:
    """Lists the classes that can win somewhere between (4, C) corners, and returns how many.

    Every winner of a corner has a lowest value in the cell; a class that reaches the largest of these at no corner
    loses everywhere.
    """
    floor = np.float32(-np.inf)
    for k in winners:
        floor = max(floor, min(corners[0, k], corners[1, k], corners[2, k], corners[3, k]))
    count = 0
    for k in range(candidates.size):
        highest = max(corners[0, k], corners[1, k], corners[2, k], corners[3, k])
        candidates[count] = k
        count += not highest < floor  # in these words a NaN is a candidate, and there is always one
    return count


@njit(cache=True, nogil=True, inline="always")
def _interpolate(
    corners: Logits,
    candidates: NDArray[np.int32],
    down: NDArray[np.float32],
    across: NDArray[np.float32],
    top: NDArray[np.float32],
    chosen: ClassIds,
) -> None:
    """One cell: the candidate of the largest value, weighted `down` and `across`; `top` is scratch."""
    one = np.float32(1)
    for y in range(down.size):
        ids = chosen[y]
        for n in range(candidates.size):
            k = candidates[n]
            at_left = (one - down[y]) * corners[0, k] + down[y] * corners[2, k]
            at_right = (one - down[y]) * corners[1, k] + down[y] * corners[3, k]
            for x in range(across.size):
                value = (one - across[x]) * at_left + across[x] * at_right
                better = n == 0 or value > top[x]
                top[x] = value if better else top[x]
                ids[x] = k if better else ids[x]
