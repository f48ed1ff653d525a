"""Compiled loops over label maps: joint histograms, runs, distances.

Imported late by its users, since numba takes a second to import. Compiled code is cached on disk, and the GIL is
released while it runs.
"""

import numpy as np
from numba import njit
from numba.cpython.unsafe.numbers import trailing_zeros

_BLOCK = 4096
"""Pixels looked at together; their flags stay in the first-level cache."""


@njit(cache=True, nogil=True, boundscheck=False)
def _edges(rows, columns, start, stop, flags, words):  # type: ignore[no-untyped-def]
    """Flags where a pixel differs from the one before it in either map; returns the number of words with a flag."""
    # Slices, because an index that could be negative keeps the compiler from using vector instructions.
    row, row_before = rows[start:stop], rows[start - 1 : stop - 1]
    column, column_before = columns[start:stop], columns[start - 1 : stop - 1]
    for i in range(row.size):
        flags[i] = np.uint8(((row[i] ^ row_before[i]) | (column[i] ^ column_before[i])) != 0)
    wanted = (row.size + 7) // 8
    for i in range(row.size, wanted * 8):
        flags[i] = 0
    found = np.int64(0)
    flags8 = flags.view(np.uint64)
    for w in range(wanted):
        words[found] = w
        found += np.int64(flags8[w] != 0)
    return found


@njit(cache=True, nogil=True, boundscheck=False)
def _count_each(rows, columns, start, stop, tables, joint):  # type: ignore[no-untyped-def]
    """Pixel by pixel, for noise; neighbours go to different tables, so that no addition waits for the last."""
    side = np.uint32(joint.shape[0])
    void = np.uint8(joint.shape[0] - 1)
    tables[:] = 0
    for i in range(start, stop):
        tables[i & 3, np.uint32(min(rows[i], void)) * side + min(columns[i], void)] += np.uint32(1)
    for cell in range(side * side):
        total = np.int64(tables[0, cell]) + tables[1, cell] + tables[2, cell] + tables[3, cell]
        joint[cell // side, cell % side] += total


@njit(cache=True, nogil=True, boundscheck=False)
def count_pairs(rows, columns, joint):  # type: ignore[no-untyped-def]
    """Adds to `joint` (S, S) int64 the pixels of every pair of classes of two (n,) uint8 maps.

    Ids from S - 1 on are void and share the last row and column. Whole runs are counted at once; only where most
    words hold an edge is every pixel looked at.
    """
    void = joint.shape[0] - 1
    n = rows.size
    flags = np.empty(_BLOCK, np.uint8)
    flags8 = flags.view(np.uint64)
    words = np.empty(_BLOCK // 8 + 1, np.uint32)
    tables = np.empty((0, 0), np.uint32)
    last = 0
    for start in range(1, n, _BLOCK):
        stop = min(n, start + _BLOCK)
        found = _edges(rows, columns, start, stop, flags, words)
        if found * 9 > stop - start:
            if tables.size == 0:
                tables = np.empty((4, joint.size), np.uint32)
            joint[min(rows[last], void), min(columns[last], void)] += start - last
            _count_each(rows, columns, start, stop, tables, joint)
            last = stop
            continue
        for k in range(found):
            word = flags8[words[k]]
            while word:
                i = start + words[k] * 8 + (trailing_zeros(word) >> 3)
                joint[min(rows[last], void), min(columns[last], void)] += i - last
                last = i
                word &= word - np.uint64(1)
    if last < n:
        joint[min(rows[last], void), min(columns[last], void)] += n - last


@njit(cache=True, nogil=True, boundscheck=False)
def encode_runs(flat, values, lengths):  # type: ignore[no-untyped-def]
    """Runs of a (n,) uint8 map: their classes into `values`, their lengths as varints into `lengths`.

    Returns (number of runs, bytes of lengths). `values` needs n bytes, `lengths` 2 n; a varint has seven bits a
    byte, least first, the eighth says that more follow.
    """
    n = flat.size
    flags = np.empty(_BLOCK, np.uint8)
    flags8 = flags.view(np.uint64)
    words = np.empty(_BLOCK // 8 + 1, np.uint32)
    last, runs, used = 0, 0, 0
    for start in range(1, n, _BLOCK):
        stop = min(n, start + _BLOCK)
        found = _edges(flat, flat, start, stop, flags, words)
        for k in range(found):
            word = flags8[words[k]]
            while word:
                i = start + words[k] * 8 + (trailing_zeros(word) >> 3)
                values[runs] = flat[last]
                runs += 1
                used = _put_varint(lengths, used, i - last)
                last = i
                word &= word - np.uint64(1)
    if n:
        values[runs] = flat[last]
        runs += 1
        used = _put_varint(lengths, used, n - last)
    return runs, used


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _put_varint(out, at, number):  # type: ignore[no-untyped-def]
    while number >= 128:
        out[at] = np.uint8((number & 127) | 128)
        number >>= 7
        at += 1
    out[at] = np.uint8(number)
    return at + 1


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _take_varint(payload, at):  # type: ignore[no-untyped-def]
    """(number, where the next one begins); (0, -1) when it does not end, or is larger than any map."""
    number, shift = np.int64(0), np.int64(0)
    while at < payload.size and shift <= 56:
        byte = np.int64(payload[at])
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at
    return np.int64(0), np.int64(-1)


@njit(cache=True, nogil=True, boundscheck=False)
def decode_runs(payload, runs, flat):  # type: ignore[no-untyped-def]
    """Fills `flat` (n,) uint8 from `runs` classes and as many varints; False when they do not give n pixels."""
    at, place = np.int64(runs), np.int64(0)
    for run in range(runs):
        length, at = _take_varint(payload, at)
        end = place + length
        if at < 0 or end > flat.size:
            return False
        flat[place:end] = payload[run]
        place = end
    return place == flat.size and at == payload.size


@njit(cache=True, nogil=True, boundscheck=False)
def merge_runs(row_payload, row_runs, column_payload, column_runs, joint):  # type: ignore[no-untyped-def]
    """`count_pairs` of two maps that are still runs: no pixel is touched. False when the runs do not match.

    Each payload is `runs` classes followed by as many varints, as `encode_runs` writes them.
    """
    void = joint.shape[0] - 1
    row_at, column_at = np.int64(row_runs), np.int64(column_runs)
    row, column = 0, 0
    row_left, column_left = np.int64(0), np.int64(0)
    while True:
        if row_left == 0:
            if row == row_runs:
                break
            row_left, row_at = _take_varint(row_payload, row_at)
            row += 1
        if column_left == 0:
            if column == column_runs:
                return False
            column_left, column_at = _take_varint(column_payload, column_at)
            column += 1
        if row_at < 0 or column_at < 0:
            return False
        step = min(row_left, column_left)
        joint[min(row_payload[row - 1], void), min(column_payload[column - 1], void)] += step
        row_left -= step
        column_left -= step
    return column == column_runs and column_left == 0


@njit(cache=True, nogil=True, boundscheck=False)
def distances(joint, row_areas, column_areas):  # type: ignore[no-untyped-def]
    """(1 - image mIoU, 1 - pixel agreement) of a (C + 1, C + 1) histogram; both 0 when nothing but void is left.

    Fills `row_areas` and `column_areas`, (C,) uint32, with the pixels of each class, those that are void in the other
    map included.
    """
    classes = joint.shape[0] - 1
    unions = np.zeros(classes, np.int64)
    total, agreed = np.int64(0), np.int64(0)
    row_areas[:] = 0
    column_areas[:] = 0
    for r in range(classes):
        for c in range(classes):
            count = joint[r, c]
            unions[r] += count
            if r != c:
                unions[c] += count
            total += count
            row_areas[r] += np.uint32(count)
            column_areas[c] += np.uint32(count)
        row_areas[r] += np.uint32(joint[r, classes])
        column_areas[r] += np.uint32(joint[classes, r])
        agreed += joint[r, r]
    if total == 0:
        return 0.0, 0.0
    ious, present = 0.0, 0
    for k in range(classes):
        if unions[k] > 0:
            ious += joint[k, k] / unions[k]
            present += 1
    return 1.0 - ious / present, 1.0 - agreed / total
