"""Compiled loops of the brush RLE codec; the format stands in `brush_rle`.

Imported late by its users, since numba takes a second to import. Compiled code is cached on disk, and the GIL is
released while it runs.
"""

import numpy as np
from numba import njit
from numba.cpython.unsafe.numbers import trailing_zeros
from numpy.typing import NDArray

PADDING = 8
"""Bytes that must follow a code, so that bits may be asked for at its very end."""

_BLOCK = 4096
"""Pixels looked at together; their flags stay in the first-level cache."""


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _bits(data: NDArray[np.uint8], position: int, count: int) -> int:
    """The `count` <= 16 bits from bit `position` on, as int64."""
    byte = position >> 3
    window = (np.int64(data[byte]) << 16) | (np.int64(data[byte + 1]) << 8) | np.int64(data[byte + 2])
    return int((window >> (24 - (position & 7) - count)) & ((1 << count) - 1))


@njit(cache=True, nogil=True, boundscheck=False)
def unpack_alpha(
    data: NDArray[np.uint8], position: int, run_bits: NDArray[np.int64], values: int, alpha: NDArray[np.uint8]
) -> int:
    """Fills `alpha` (values // 4,) uint8 from the blocks that begin at bit `position`; returns how many values came.

    Only every fourth value is alpha. `data` is the code with `PADDING` bytes behind it; fewer than `values` come when
    it is cut short.
    """
    bits = (data.size - PADDING) * 8
    found = 0
    while found < values:
        if position + 3 > bits:
            break
        size = run_bits[_bits(data, position + 1, 2)]
        count = _bits(data, position + 3, size) + 1
        is_one_word = _bits(data, position, 1) == 1 or count == 1
        position += 3 + size
        end = position + 8 * (1 if is_one_word else count)
        if end > bits:
            break
        first, last = found >> 2, min(found + count, values) >> 2  # of those before value p, p >> 2 are alpha
        if is_one_word:
            alpha[first:last] = np.uint8(_bits(data, position, 8))
        else:
            at = position + 8 * (first * 4 + 3 - found)
            for pixel in range(first, last):
                alpha[pixel] = np.uint8(_bits(data, at, 8))
                at += 32
        found += count
        position = end
    return min(found, values)


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _put_run(
    out: NDArray[np.uint8], used: int, held: int, bits: int, word: int, length: int
) -> tuple[int, int, int]:
    """Appends the blocks of `length` values `word`; the `bits` < 8 of `held` come before them.

    A run of more than 65,536 is cut, and its rest keeps the longest size of run, as in the SDK.
    """
    is_long = length > 256
    while length > 0:
        part = min(length, 65536)
        length -= part
        if is_long:
            code, size = 7 << 16, 19
        elif part > 16:
            code, size = 6 << 8, 11
        elif part > 8:
            code, size = 5 << 4, 7
        else:
            code, size = 4 << 3, 6
        held = (held << (size + 8)) | ((code | (part - 1)) << 8) | word
        bits += size + 8
        while bits >= 8:
            bits -= 8
            out[used] = held >> bits
            used += 1
        held &= (1 << bits) - 1
    return used, held, bits


@njit(cache=True, nogil=True, boundscheck=False)
def pack_alpha(
    alpha: NDArray[np.uint8], out: NDArray[np.uint8], used: int, held: int, bits: int
) -> tuple[int, int, int]:
    """Appends to `out` the blocks of a picture whose four channels all are `alpha` (n,) uint8, n > 0.

    `used` bytes of `out` are written, the `bits` < 8 of `held` come next. Returns (used, held, bits) as they are then.
    `out` needs two bytes a pixel and 16.
    """
    n = alpha.size
    flags = np.empty(_BLOCK, np.uint8)
    flags8 = flags.view(np.uint64)
    words = np.empty(_BLOCK // 8 + 1, np.uint32)
    last = 0
    for start in range(1, n, _BLOCK):
        stop = min(n, start + _BLOCK)
        # Slices, because an index that could be negative keeps the compiler from using vector instructions.
        here, before = alpha[start:stop], alpha[start - 1 : stop - 1]
        for i in range(here.size):
            flags[i] = np.uint8(here[i] != before[i])
        for i in range(here.size, (here.size + 7) // 8 * 8):
            flags[i] = 0
        found = np.int64(0)
        for w in range((here.size + 7) // 8):
            words[found] = w
            found += np.int64(flags8[w] != 0)
        for k in range(found):
            word = flags8[words[k]]
            while word:
                i = start + words[k] * 8 + (trailing_zeros(word) >> 3)
                used, held, bits = _put_run(out, used, held, bits, np.int64(alpha[last]), (i - last) * 4)
                last = i
                word &= word - np.uint64(1)
    used, held, bits = _put_run(out, used, held, bits, np.int64(alpha[last]), (n - last) * 4)
    return used, held, bits
