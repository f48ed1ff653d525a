"""Compiled loops that write masks of a label map as PNG pixels: rows filtered "Up", then deflate (RFC 1951).

The pixels of RGBA pictures are never made: a filtered row is zeros, but for the runs of pixels whose class is another
than that of the pixel above. Those runs are found once for all classes; each class makes its code of them. Imported
late by its users, since numba takes a second to import. Compiled code is cached on disk, and the GIL is released
while it runs.
"""

import numpy as np
from numba import njit
from numba.cpython.unsafe.numbers import trailing_zeros
from numpy.typing import NDArray

from mad_backend.label_studio.png_kernels import CODE_LENGTHS_ORDER, LENGTH_BITS, LENGTHS

_LENGTH_CODES = np.searchsorted(LENGTHS, np.arange(259), side="right") - 1
"""Match length -> number of its code; the code of symbol 257 is 0."""
_ALL_SYMBOLS = 286
_END = 256
_LONGEST = 12
"""Bits of a Huffman code; the header below has words for no longer ones."""
_MATCH = 1 << 20
"""Marks a token that repeats earlier bytes: length * 2, + 1 where the pattern is a pixel and not a byte."""
_ADLER = 65521
_UP = 2

Runs = NDArray[np.int32]
"""(n, 5): row, first column, columns, class before (-1: nothing), class now; in the order of pixels."""


@njit(cache=True, nogil=True, boundscheck=False)
def _add_change(runs: Runs, found: int, y: int, x: int, before: int, now: int) -> int:
    """One pixel more to the last of the `found` runs, where it continues that one; how many there are then."""
    if found:
        last = runs[found - 1]
        if last[0] == y and last[1] + last[2] == x and last[3] == before and last[4] == now:
            last[2] += 1
            return found
    runs[found, 0], runs[found, 1], runs[found, 2] = y, x, 1
    runs[found, 3], runs[found, 4] = before, now
    return found + 1


@njit(cache=True, nogil=True, boundscheck=False)
def changed_runs(label_map: NDArray[np.uint8]) -> Runs:
    """Where a (H, W) map differs from itself one row above."""
    height, width = label_map.shape
    most = width
    for y in range(1, height):
        here, above = label_map[y], label_map[y - 1]
        changed = 0
        for x in range(width):
            changed += here[x] != above[x]
        most += changed
    runs, found = np.empty((most, 5), np.int32), 0
    for x in range(width):
        found = _add_change(runs, found, 0, x, -1, label_map[0, x])
    flags = np.zeros((width + 7) // 8 * 8, np.uint8)
    flags8 = flags.view(np.uint64)
    for y in range(1, height):
        here, above = label_map[y], label_map[y - 1]
        for x in range(width):
            flags[x] = np.uint8(here[x] != above[x])
        for w in range(flags8.size):
            word = flags8[w]
            while word:
                x = w * 8 + (trailing_zeros(word) >> 3)
                found = _add_change(runs, found, y, x, above[x], here[x])
                word &= word - np.uint64(1)
    return runs[:found]


@njit(cache=True, nogil=True, boundscheck=False)
def _put_byte(tokens: NDArray[np.int32], used: int, byte: int, low: int, high: int) -> tuple[int, int, int]:
    """Appends one byte; `low` and `high` are the halves of the Adler-32 checksum."""
    tokens[used] = byte
    low = (low + byte) % _ADLER
    return used + 1, low, (high + low) % _ADLER


@njit(cache=True, nogil=True, boundscheck=False)
def _put_zeros(tokens: NDArray[np.int32], used: int, count: int, low: int, high: int) -> tuple[int, int]:
    """Appends `count` zeros behind a byte that is none; returns (used, high), since `low` stays as it is."""
    high = (high + count * low) % _ADLER
    if count:
        tokens[used] = 0
        used, count = used + 1, count - 1
    while count >= 3:
        part = min(count, 258)
        tokens[used] = _MATCH | part * 2
        used, count = used + 1, count - part
    for _ in range(count):
        tokens[used] = 0
        used += 1
    return used, high


@njit(cache=True, nogil=True, boundscheck=False)
def _put_pixels(
    tokens: NDArray[np.int32],
    used: int,
    pixel: NDArray[np.int64],
    count: int,
    low: int,
    high: int,
) -> tuple[int, int, int]:
    """Appends `count` > 0 times the four bytes of `pixel`."""
    for byte in pixel:
        used, low, high = _put_byte(tokens, used, byte, low, high)
    for _ in range(count - 1):
        for byte in pixel:
            low += int(byte)
            high += low
        low, high = low % _ADLER, high % _ADLER
    left = (count - 1) * 4
    while left:
        part = min(left, 256)
        tokens[used] = _MATCH | part * 2 | 1
        used, left = used + 1, left - part
    return used, low, high


@njit(cache=True, nogil=True, boundscheck=False)
def _change(runs: Runs, i: int, class_id: int) -> int:
    """1 where a run becomes of the class, -1 where it was of it, 0 where it is neither."""
    return 1 if runs[i, 4] == class_id else -1 if runs[i, 3] == class_id else 0


@njit(cache=True, nogil=True, boundscheck=False)
def _tokens(
    runs: Runs, class_id: int, pixel: NDArray[np.int64], height: int, width: int
) -> tuple[NDArray[np.int32], int]:
    """Filtered rows of the mask of one class as bytes and repetitions, and their Adler-32 checksum."""
    count, pixels = 0, 0
    for i in range(len(runs)):
        if _change(runs, i, class_id):
            count, pixels = count + 1, pixels + runs[i, 2]
    # Of a row: its filter, and twice at most one zero, repetitions and two zeros; of a run the same and four bytes.
    most = (height + count) * 5 + count * 5 + (height * (1 + 4 * width) + 4 * pixels) // 256 + 8
    tokens = np.empty(most, np.int32)
    off = -pixel & 255
    used, low, high = 0, 1, 0
    next_run, present, zeros = 0, 0, 0
    for y in range(height):
        first_run = next_run
        while next_run < len(runs) and runs[next_run, 0] == y:
            present += _change(runs, next_run, class_id) * runs[next_run, 2]
            next_run += 1
        if present == 0:  # a row without the class is all zeros unfiltered, its filter's number included
            zeros += 1 + 4 * width
            continue
        used, high = _put_zeros(tokens, used, zeros, low, high)
        used, low, high = _put_byte(tokens, used, _UP, low, high)
        i, at = first_run, 0
        while i < next_run:
            change, start = _change(runs, i, class_id), int(runs[i, 1])
            end = start + int(runs[i, 2])
            i += 1
            if not change:
                continue
            while i < next_run and runs[i, 1] == end and _change(runs, i, class_id) == change:
                end, i = end + int(runs[i, 2]), i + 1
            used, high = _put_zeros(tokens, used, 4 * (start - at), low, high)
            bytes_of_change = pixel if change > 0 else off
            used, low, high = _put_pixels(tokens, used, bytes_of_change, end - start, low, high)
            at = end
        zeros = 4 * (width - at)
    used, high = _put_zeros(tokens, used, zeros, low, high)
    return tokens[:used], high << 16 | low


@njit(cache=True, nogil=True, boundscheck=False)
def _code_lengths(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits of each symbol's Huffman code, `_LONGEST` at most, 0 for symbols that are not there; two are, at least."""
    symbols, n = np.empty(counts.size, np.int64), 0
    for symbol in range(counts.size):
        if counts[symbol]:
            symbols[n] = symbol
            n += 1
    weights, parents = np.empty(2 * n - 1, np.int64), np.empty(2 * n - 1, np.int64)
    depths, is_free = np.zeros(2 * n - 1, np.int64), np.empty(2 * n - 1, np.bool_)
    for i in range(n):
        weights[i] = counts[symbols[i]]
    longest = _LONGEST + 1
    while longest > _LONGEST:
        for i in range(n):
            is_free[i] = True
        for node in range(n, 2 * n - 1):
            weights[node], is_free[node] = 0, True
            for _ in range(2):
                least = -1
                for i in range(node):
                    if is_free[i] and (least < 0 or weights[i] < weights[least]):
                        least = i
                is_free[least], parents[least] = False, node
                weights[node] += weights[least]
        longest = 0
        for node in range(2 * n - 3, -1, -1):
            depths[node] = depths[parents[node]] + 1
            longest = max(longest, depths[node])
        for i in range(n):  # flatter, should a code be too long
            weights[i] = (weights[i] + 1) // 2
    lengths = np.zeros(counts.size, np.int64)
    for i in range(n):
        lengths[symbols[i]] = depths[i]
    return lengths


@njit(cache=True, nogil=True, boundscheck=False)
def _codes(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The canonical codes of these lengths, their bits in the order in which they are written."""
    codes, code = np.zeros(lengths.size, np.int64), 0
    for length in range(1, 16):
        code <<= 1
        for symbol in range(lengths.size):
            if lengths[symbol] == length:
                for bit in range(length):
                    codes[symbol] |= ((code >> bit) & 1) << (length - 1 - bit)
                code += 1
    return codes


@njit(cache=True, nogil=True, boundscheck=False)
def _put_bits(
    out: NDArray[np.uint8], used: int, held: int, bits: int, value: int, count: int
) -> tuple[int, int, int]:
    """Appends the `count` low bits of `value`; the `bits` < 8 of `held` come before them."""
    held |= value << bits
    bits += count
    while bits >= 8:
        out[used] = held & 255
        used, held, bits = used + 1, held >> 8, bits - 8
    return used, held, bits


@njit(cache=True, nogil=True, boundscheck=False)
def _put_header(out: NDArray[np.uint8], used: int, lengths: NDArray[np.int64]) -> tuple[int, int, int]:
    """The head of the one block, with Huffman codes of the given lengths, and two distances: 1 and 4, of one bit."""
    words = np.zeros(19, np.int64)
    words[0] = words[18] = 2
    words[17] = 3
    words[1 : _LONGEST + 1] = 5
    codes = _codes(words)
    held, bits = 0, 0
    used, held, bits = _put_bits(out, used, held, bits, 1 | 2 << 1, 3)
    used, held, bits = _put_bits(out, used, held, bits, (_ALL_SYMBOLS - 257) | (4 - 1) << 5, 10)
    used, held, bits = _put_bits(out, used, held, bits, 18 - 4, 4)
    for n in range(18):
        used, held, bits = _put_bits(out, used, held, bits, words[CODE_LENGTHS_ORDER[n]], 3)
    told = np.zeros(_ALL_SYMBOLS + 4, np.int64)
    told[:_ALL_SYMBOLS] = lengths
    told[_ALL_SYMBOLS] = told[_ALL_SYMBOLS + 3] = 1
    n = 0
    while n < told.size:
        zeros = 0
        while n + zeros < told.size and told[n + zeros] == 0 and zeros < 138:
            zeros += 1
        if zeros > 10:
            used, held, bits = _put_bits(out, used, held, bits, codes[18], words[18])
            used, held, bits = _put_bits(out, used, held, bits, zeros - 11, 7)
        elif zeros > 2:
            used, held, bits = _put_bits(out, used, held, bits, codes[17], words[17])
            used, held, bits = _put_bits(out, used, held, bits, zeros - 3, 3)
        else:
            used, held, bits = _put_bits(out, used, held, bits, codes[told[n]], words[told[n]])
            zeros = 1
        n += zeros
    return used, held, bits


@njit(cache=True, nogil=True, boundscheck=False)
def pack_mask(
    runs: Runs, class_id: int, pixel: NDArray[np.int64], height: int, width: int
) -> NDArray[np.uint8]:
    """The zlib stream (RFC 1950) of a PNG in RGBA: `pixel` where a map has the class, zeros elsewhere.

    `runs` are the `changed_runs` of the (height, width) map; `pixel` (4,) int64 are bytes, the last of them not 0.
    """
    tokens, checksum = _tokens(runs, class_id, pixel, height, width)
    counts = np.zeros(_ALL_SYMBOLS, np.int64)
    counts[_END] = 1
    for token in tokens:
        counts[257 + _LENGTH_CODES[(token - _MATCH) >> 1] if token & _MATCH else token] += 1
    lengths = _code_lengths(counts)
    codes = _codes(lengths)
    out = np.empty(tokens.size * 3 + 400, np.uint8)
    out[0], out[1] = 0x78, 0x01
    used, held, bits = _put_header(out, 2, lengths)
    for token in tokens:
        if token & _MATCH:
            length = (token - _MATCH) >> 1
            code = _LENGTH_CODES[length]
            used, held, bits = _put_bits(out, used, held, bits, codes[257 + code], lengths[257 + code])
            used, held, bits = _put_bits(out, used, held, bits, length - LENGTHS[code], LENGTH_BITS[code])
            used, held, bits = _put_bits(out, used, held, bits, token & 1, 1)
        else:
            used, held, bits = _put_bits(out, used, held, bits, codes[token], lengths[token])
    used, held, bits = _put_bits(out, used, held, bits, codes[_END], lengths[_END])
    used, held, bits = _put_bits(out, used, held, bits, 0, -bits & 7)
    for n in range(4):
        out[used + n] = checksum >> (24 - 8 * n) & 255
    return out[: used + 4]
