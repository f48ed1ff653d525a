"""Compiled loops of the selection: every class of every image goes to its cell, and a cell keeps its best.

Imported late by its users, as `kernels` is. All arrays of `Rows` are read-only, so that one compiled version serves
arrays of any origin.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

Text: TypeAlias = NDArray[np.uint8]
"""UTF-8 bytes."""


class Ids(NamedTuple):
    """The arrays of an `IdColumn`."""

    offsets: NDArray[np.int32]
    text: Text


class Rows(NamedTuple):
    """n images of one competitor, with the areas under one model's map (see `ClassAreas`)."""

    area_offsets: NDArray[np.int32]
    class_ids: NDArray[np.uint8]
    area_pixels: NDArray[np.uint32]
    pixels: NDArray[np.uint32]
    discrepancy: NDArray[np.float64]
    looks: NDArray[np.uint64]
    ids: Ids
    is_barred: NDArray[np.bool_]


class Rules(NamedTuple):
    """Class id -> its cell, (256,) int16; the window of every cell, (cells,) float64, bounds inclusive.

    The last cell is for classes that have none: no share is inside its window.

    What looks like an image that a cell has already taken, (cells, n3) hashes of which `taken` (cells,) int64 count, is
    no longer wanted there: hashes that differ in at most `near` bits; -1 for none.
    """

    cell_of: NDArray[np.int16]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    near: int
    taken_looks: NDArray[np.uint64]
    taken: NDArray[np.int64]


class Ranks(NamedTuple):
    """The best images of every cell in order of rank, (cells, places), and (cells,) counts, all int64.

    `row` is a row of the images at hand, or -1 - k for id k of those that `keep` kept of earlier ones. `cut` is the d
    of the last place once all are held, before that -inf; `tied` counts images that were left out though they have it.
    """

    discrepancy: NDArray[np.float64]
    row: NDArray[np.int64]
    looks: NDArray[np.uint64]
    held: NDArray[np.int64]
    eligible: NDArray[np.int64]
    tied: NDArray[np.int64]
    cut: NDArray[np.float64]


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")
def offer(rows: Rows, rules: Rules, ranks: Ranks, kept: Ids) -> None:
    """Shows all rows to the cells of `ranks`; `keep` must follow before the next rows."""
    for i in range(rows.discrepancy.size):
        if rows.is_barred[i]:
            continue
        d = rows.discrepancy[i]
        total = np.float64(rows.pixels[i])
        for entry in range(rows.area_offsets[i], rows.area_offsets[i + 1]):
            cell = rules.cell_of[rows.class_ids[entry]]
            share = rows.area_pixels[entry] / total
            # No branch: whether a share is inside its window cannot be predicted.
            is_inside = (share > 0) & (share >= rules.low[cell]) & (share <= rules.high[cell])
            ranks.eligible[cell] += is_inside
            if is_inside & (d >= ranks.cut[cell]) and not _looks_taken(rules, cell, rows.looks[i]):
                _insert(rows, i, ranks, kept, cell)


@njit(cache=True, nogil=True, boundscheck=False)
def _looks_taken(rules: Rules, cell: int, look: np.uint64) -> bool:
    for k in range(rules.taken[cell]):
        different = rules.taken_looks[cell, k] ^ look
        bits = 0
        while different and bits <= rules.near:
            different &= different - np.uint64(1)
            bits += 1
        if bits <= rules.near:
            return True
    return False


@njit(cache=True, nogil=True, boundscheck=False)
def _insert(rows: Rows, i: int, ranks: Ranks, kept: Ids, cell: int) -> None:
    """Gives row i its place in a cell; a full cell drops its last, or refuses row i."""
    places = ranks.discrepancy.shape[1]
    held = ranks.held[cell]
    d = rows.discrepancy[i]
    low, high = 0, held
    while low < high:
        middle = (low + high) // 2
        other = ranks.discrepancy[cell, middle]
        if d > other or (d == other and _is_before(rows.ids, i, kept, ranks.row[cell, middle])):
            high = middle
        else:
            low = middle + 1
    if low == places:
        ranks.tied[cell] += 1
        return
    is_full = held == places
    dropped = ranks.discrepancy[cell, places - 1]
    for place in range(min(held, places - 1), low, -1):
        ranks.discrepancy[cell, place] = ranks.discrepancy[cell, place - 1]
        ranks.row[cell, place] = ranks.row[cell, place - 1]
        ranks.looks[cell, place] = ranks.looks[cell, place - 1]
    ranks.discrepancy[cell, low] = d
    ranks.row[cell, low] = i
    ranks.looks[cell, low] = rows.looks[i]
    if not is_full:
        ranks.held[cell] = held + 1
        if held + 1 < places:
            return
    elif ranks.discrepancy[cell, places - 1] == dropped:
        ranks.tied[cell] += 1
    else:
        ranks.tied[cell] = 0
    ranks.cut[cell] = ranks.discrepancy[cell, places - 1]


@njit(cache=True, nogil=True, boundscheck=False)
def _is_before(ids: Ids, i: int, kept: Ids, row: int) -> bool:
    """Whether id i sorts before that of a held image."""
    if row >= 0:
        return bool(_compare(ids, i, ids, row) < 0)
    return bool(_compare(ids, i, kept, -1 - row) < 0)


@njit(cache=True, nogil=True, boundscheck=False)
def _compare(ids: Ids, i: int, others: Ids, k: int) -> np.int64:
    """Below, at or above 0 as id i of `ids` sorts before, is equal to, or sorts after id k of `others`."""
    start, stop = ids.offsets[i], ids.offsets[i + 1]
    other_start, other_stop = others.offsets[k], others.offsets[k + 1]
    for byte in range(min(stop - start, other_stop - other_start)):
        difference = np.int64(ids.text[start + byte]) - np.int64(others.text[other_start + byte])
        if difference:
            return difference
    return np.int64(stop - start) - np.int64(other_stop - other_start)


@njit(cache=True, nogil=True, boundscheck=False)
def keep(rows: Rows, ranks: Ranks, kept: Ids) -> tuple[NDArray[np.int32], Text]:
    """The ids of all held images, copied; the rows of `ranks` then point there."""
    count, size = 0, 0
    for cell in range(ranks.held.size):
        for place in range(ranks.held[cell]):
            row = ranks.row[cell, place]
            count += 1
            if row >= 0:
                size += rows.ids.offsets[row + 1] - rows.ids.offsets[row]
            else:
                size += kept.offsets[-row] - kept.offsets[-1 - row]
    offsets, text = np.zeros(count + 1, np.int32), np.empty(size, np.uint8)
    count = 0
    for cell in range(ranks.held.size):
        for place in range(ranks.held[cell]):
            row, at = ranks.row[cell, place], offsets[count]
            if row >= 0:
                start, stop = rows.ids.offsets[row], rows.ids.offsets[row + 1]
                text[at : at + stop - start] = rows.ids.text[start:stop]
            else:
                start, stop = kept.offsets[-1 - row], kept.offsets[-row]
                text[at : at + stop - start] = kept.text[start:stop]
            offsets[count + 1] = at + stop - start
            ranks.row[cell, place] = -1 - count
            count += 1
    return offsets, text


@njit(cache=True, nogil=True, boundscheck=False)
def _hash(ids: Ids, i: int) -> np.uint64:
    """FNV-1a, 64 bit (draft-eastlake-fnv), folded."""
    value = np.uint64(0xCBF29CE484222325)
    for byte in range(ids.offsets[i], ids.offsets[i + 1]):
        value = (value ^ np.uint64(ids.text[byte])) * np.uint64(0x100000001B3)
    return value ^ (value >> np.uint64(32))


@njit(cache=True, nogil=True, boundscheck=False)
def hash_table(ids: Ids) -> NDArray[np.int32]:
    """Open addressing over ids: place -> index + 1, or 0; a power of two, at most half full."""
    size = 2
    while size < 2 * ids.offsets.size:
        size *= 2
    table = np.zeros(size, np.int32)
    for k in range(ids.offsets.size - 1):
        place = _hash(ids, k) & np.uint64(size - 1)
        while table[place]:
            place = (place + np.uint64(1)) & np.uint64(size - 1)
        table[place] = k + 1
    return table


@njit(cache=True, nogil=True, boundscheck=False)
def find_barred(ids: Ids, barred: Ids, table: NDArray[np.int32], is_barred: NDArray[np.bool_]) -> None:
    """Sets `is_barred` (n,) bool where one of n ids is among `barred`, whose `hash_table` is `table`."""
    mask = np.uint64(table.size - 1)
    for i in range(is_barred.size):
        place = _hash(ids, i) & mask
        while table[place] and not is_barred[i]:
            is_barred[i] = _compare(ids, i, barred, table[place] - 1) == 0
            place = (place + np.uint64(1)) & mask
