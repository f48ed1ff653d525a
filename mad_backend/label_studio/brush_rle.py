"""Label Studio's brush RLE: a mask as the run-length code of an RGBA picture, the mask in its alpha channel.

The format is rle-pack's (github.com/thi-ng/umbrella, packages/rle-pack), big-endian bits. Head: 32 bits number of
values, 5 bits word size - 1, four times 4 bits run size - 1. Then blocks: 1 bit "one word, repeated", 2 bits which of
the four run sizes, that many bits count - 1, then one word, or `count` words where nothing is repeated.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mad_backend.errors import LabelFormatError

_HEAD_BITS: Final = 53
_WORD_BITS: Final = 8
_WINDOW_BYTES: Final = 8
"""One block's head and first word take at most 27 bits, wherever in a byte they start."""


def decode_alpha(rle: object, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width) uint8 alpha channel, 0..255, of a region's `rle`, a list of bytes.

    Raises LabelFormatError when it is no such list, is cut short, or is of a picture of another size.
    """
    data = _bytes(rle)
    head = int.from_bytes(data[: _HEAD_BITS // 8 + 1], "big") >> (-_HEAD_BITS % 8)
    values, word_bits = head >> 21, (head >> 16 & 31) + 1
    run_bits = [(head >> place & 15) + 1 for place in (12, 8, 4, 0)]
    if values != height * width * 4:
        raise LabelFormatError(
            f"brush RLE holds {values} values; an RGBA picture of height {height}, width {width} has "
            f"{height * width * 4}"
        )
    if word_bits != _WORD_BITS:
        raise LabelFormatError(f"brush RLE has words of {word_bits} bits; wanted {_WORD_BITS}")
    counts, words = _blocks(data, run_bits, values)
    # Values 4k + 3 are alpha: of those before position p there are p // 4, so no colour need be unpacked.
    ends = np.minimum(np.cumsum(np.asarray(counts, np.int64)), values) // 4
    alpha = np.repeat(np.asarray(words, np.uint8), np.diff(ends, prepend=0))
    return alpha.reshape(height, width)


def _blocks(data: bytes, run_bits: list[int], values: int) -> tuple[list[int], list[int]]:
    """How often each word stands, and the words, in order, until there are `values`."""
    counts: list[int] = []
    words: list[int] = []
    bits = len(data) * 8
    padded = data + bytes(_WINDOW_BYTES)
    position, found = _HEAD_BITS, 0
    while found < values:
        byte, shift = position >> 3, position & 7
        window = int.from_bytes(padded[byte : byte + _WINDOW_BYTES], "big") >> (37 - shift)  # 27 bits
        size = run_bits[window >> 24 & 3]
        count = (window >> 24 - size & (1 << size) - 1) + 1
        position += 3 + size
        is_one_word = window >> 26 & 1 or count == 1
        end = position + _WORD_BITS * (1 if is_one_word else count)
        if end > bits:
            raise LabelFormatError(f"brush RLE is cut short: {found} of {values} values are there")
        if is_one_word:
            counts.append(count)
            words.append(window >> 16 - size & 255)
        else:
            counts.extend([1] * count)
            words.extend(_aligned(data, position, count))
        found += count
        position = end
    return counts, words


def _aligned(data: bytes, position: int, count: int) -> bytes:
    """`count` words of 8 bits that start at bit `position`."""
    byte, shift = position >> 3, position & 7
    packed = int.from_bytes(data[byte : byte + count + 1].ljust(count + 1, b"\0"), "big") >> (8 - shift)
    return (packed & (1 << 8 * count) - 1).to_bytes(count, "big")


def _bytes(rle: object) -> bytes:
    try:
        data = bytes(rle) if isinstance(rle, list) else b""
    except (TypeError, ValueError):
        data = b""
    if len(data) * 8 < _HEAD_BITS:
        raise LabelFormatError(f"brush RLE: wanted a list of bytes, came {str(rle)[:40]!r}")
    return data
