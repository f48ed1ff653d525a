"""Compiled loops that read the alpha channel of a PNG: deflate (RFC 1951), then filters (PNG, chapter 9).

Masks are long runs of one pixel, of which zlib copies byte after byte; here runs are copied as a whole, and colours
are never unfiltered. Imported late by its users, since numba takes a second to import. Compiled code is cached on disk,
and the GIL is released while it runs.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

PADDING = 8
"""Bytes that must follow compressed data, so that bits may be asked for at its very end."""

LENGTHS = np.array(
    [
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        13,
        15,
        17,
        19,
        23,
        27,
        31,
        35,
        43,
        51,
        59,
        67,
        83,
        99,
        115,
        131,
        163,
        195,
        227,
        258,
    ]
)
LENGTH_BITS = np.array([0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0])
_DISTANCE_BITS = np.array([0, 0, *(n // 2 for n in range(28))])
_DISTANCES = np.cumsum([1, *(1 << n for n in _DISTANCE_BITS[:-1])])
CODE_LENGTHS_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15])


@njit(cache=True, nogil=True, boundscheck=False)
def _bits(data: NDArray[np.uint8], position: int, count: int) -> int:
    """The `count` <= 16 bits from bit `position` on, the first one least, as int64."""
    byte = position >> 3
    window = np.int64(data[byte]) | (np.int64(data[byte + 1]) << 8) | (np.int64(data[byte + 2]) << 16)
    return int((window >> (position & 7)) & ((1 << count) - 1))


@njit(cache=True, nogil=True, boundscheck=False)
def _fill_table(lengths: NDArray[np.int64], table: NDArray[np.int32]) -> int:
    """Looks up the next bits of a canonical Huffman code: symbol * 16 + bits of its code, 0 for no code.

    Returns how many bits to look at; -1 when more codes are given than there can be.
    """
    longest, code = 0, 0
    for length in lengths:
        longest = max(longest, length)
    for n in range(1 << longest):
        table[n] = 0
    for length in range(1, longest + 1):
        code <<= 1
        for symbol in range(lengths.size):
            if lengths[symbol] == length:
                if code >> length:
                    return -1
                place = 0
                for bit in range(length):
                    place |= ((code >> bit) & 1) << (length - 1 - bit)
                for n in range(place, 1 << longest, 1 << length):
                    table[n] = symbol * 16 + length
                code += 1
    return longest


@njit(cache=True, nogil=True, boundscheck=False)
def _read_lengths(
    data: NDArray[np.uint8], position: int, end: int, lengths: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Code lengths of a dynamic block into `lengths` (320,); returns (literals, distances, position), -1: damage."""
    literals, distances = _bits(data, position, 5) + 257, _bits(data, position + 5, 5) + 1
    count = _bits(data, position + 10, 4) + 4
    position += 14
    small, table = np.zeros(19, np.int64), np.empty(128, np.int32)
    for n in range(count):
        if position < end:
            small[CODE_LENGTHS_ORDER[n]] = _bits(data, position, 3)
        position += 3
    width = _fill_table(small, table)
    filled = 0
    while filled < literals + distances:
        if position >= end or width < 0:
            return 0, 0, -1
        entry = table[_bits(data, position, width)]
        symbol = entry >> 4
        position += entry & 15
        if entry == 0 or (symbol == 16 and filled == 0):
            return 0, 0, -1
        if symbol < 16:
            lengths[filled] = symbol
            filled += 1
            continue
        bits = 2 if symbol == 16 else 3 if symbol == 17 else 7
        repeats = _bits(data, position, bits) + (11 if symbol == 18 else 3)
        position += bits
        if filled + repeats > literals + distances:
            return 0, 0, -1
        repeated = lengths[filled - 1] if symbol == 16 else 0
        for n in range(filled, filled + repeats):
            lengths[n] = repeated
        filled += repeats
    return literals, distances, position


@njit(cache=True, nogil=True, boundscheck=False)
def _copy_match(out: NDArray[np.uint8], used: int, distance: int, length: int) -> None:
    """Repeats what stands `distance` back; what has been copied is copied again, twice as much each time."""
    source, done = used - distance, 0
    while done < length:
        # A whole number of distances, so that the next part begins where the pattern does; 32 at least.
        part = min(max(distance + done, 32 // distance * distance), length - done)
        # Slices, because the compiler cannot know otherwise that the two do not overlap.
        old, new = out[source : source + part], out[used + done : used + done + part]
        for n in range(part):
            new[n] = old[n]
        done += part


@njit(cache=True, nogil=True, boundscheck=False)
def _inflate_codes(
    data: NDArray[np.uint8],
    position: int,
    end: int,
    tables: NDArray[np.int32],
    widths: NDArray[np.int64],
    out: NDArray[np.uint8],
    used: int,
) -> tuple[int, int]:
    """Unpacks one block of Huffman codes; returns (position, used), position -1 for damage or too much output."""
    while position < end:
        entry = tables[0, _bits(data, position, widths[0])]
        symbol = entry >> 4
        position += entry & 15
        if entry == 0 or symbol > 285 or position > end:
            break
        if symbol == 256:
            return position, used
        if symbol < 256:
            if used >= out.size:
                break
            out[used] = symbol
            used += 1
            continue
        length = LENGTHS[symbol - 257] + _bits(data, position, LENGTH_BITS[symbol - 257])
        position += LENGTH_BITS[symbol - 257]
        entry = tables[1, _bits(data, position, widths[1])]
        symbol = entry >> 4
        position += entry & 15
        if entry == 0 or symbol > 29:
            break
        distance = _DISTANCES[symbol] + _bits(data, position, _DISTANCE_BITS[symbol])
        position += _DISTANCE_BITS[symbol]
        if position > end or distance > used or used + length > out.size:
            break
        _copy_match(out, used, distance, length)
        used += length
    return -1, used


@njit(cache=True, nogil=True, boundscheck=False)
def _copy_stored(
    data: NDArray[np.uint8], position: int, end: int, out: NDArray[np.uint8], used: int
) -> tuple[int, int]:
    """One block that was not compressed; returns as `_inflate_codes`."""
    first = ((position + 7) >> 3) + 4
    if first * 8 > end:
        return -1, used
    length = _bits(data, (first - 4) * 8, 16)
    if (first + length) * 8 > end or used + length > out.size:
        return -1, used
    for n in range(length):
        out[used + n] = data[first + n]
    return (first + length) * 8, used + length


@njit(cache=True, nogil=True, boundscheck=False)
def inflate(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> bool:
    """Unpacks deflate `data`, with `PADDING` bytes behind it, into `out`; True when it fills `out` exactly."""
    end = (data.size - PADDING) * 8
    position, used, is_last = 0, 0, False
    tables, widths = np.empty((2, 1 << 15), np.int32), np.zeros(2, np.int64)
    lengths = np.zeros(320, np.int64)
    while position >= 0 and not is_last:
        if position + 3 > end:
            return False
        is_last, kind = _bits(data, position, 1) == 1, _bits(data, position + 1, 2)
        position += 3
        if kind == 0:
            position, used = _copy_stored(data, position, end, out, used)
            continue
        literals, distances = 288, 30
        if kind == 1:
            for n in range(318):
                lengths[n] = 8 if n < 144 or 280 <= n < 288 else 9 if n < 256 else 7 if n < 280 else 5
        else:
            literals, distances, position = _read_lengths(data, position, end, lengths)
        if kind == 3 or position < 0:
            return False
        widths[0] = _fill_table(lengths[:literals], tables[0])
        widths[1] = _fill_table(lengths[literals : literals + distances], tables[1])
        if widths[0] < 0 or widths[1] < 0:
            return False
        position, used = _inflate_codes(data, position, end, tables, widths, out, used)
    return position >= 0 and used == out.size


@njit(cache=True, nogil=True, boundscheck=False)
def unfilter_alpha(rows: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> bool:
    """Fills `alpha` (H, W) uint8 from `rows` (H, 1 + 4 W), filtered RGBA; False where a filter is none of PNG's."""
    height, width = alpha.shape
    for y in range(height):
        kind, row, above = rows[y, 0], rows[y], alpha[max(y - 1, 0)]
        if kind > 4:
            return False
        if kind == 0 or (kind == 2 and y == 0):
            for x in range(width):
                alpha[y, x] = row[4 + 4 * x]
        elif kind == 2:
            for x in range(width):
                alpha[y, x] = row[4 + 4 * x] + above[x]
        else:
            left, corner = np.int64(0), np.int64(0)
            for x in range(width):
                up = np.int64(above[x]) if y else np.int64(0)
                if kind == 1:
                    guess = left
                elif kind == 3:
                    guess = (left + up) >> 1
                else:
                    guess = _paeth(left, up, corner)
                left, corner = (np.int64(row[4 + 4 * x]) + guess) & 255, up
                alpha[y, x] = left
    return True


@njit(cache=True, nogil=True, boundscheck=False)
def _paeth(left: int, up: int, corner: int) -> int:
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner
