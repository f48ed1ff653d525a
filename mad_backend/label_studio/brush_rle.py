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
_RUN_BITS: Final = (3, 4, 8, 16)
"""Run sizes that Label Studio and its SDK write."""
_LONGEST_RUN: Final = 1 << 16
"""Run sizes are four bits, so no block holds more values."""


def encode_alpha(alpha: NDArray[np.uint8]) -> list[int]:
    """The `rle` of a region from its (H, W) uint8 alpha channel, as JSON has it; colours are alpha too.

    Byte for byte what `mask2rle` of label_studio_sdk 2.1.2 writes.
    """
    from mad_backend.label_studio.rle_kernels import pack_alpha

    head = alpha.size * 4
    for number, bits in ((_WORD_BITS - 1, 5), *((bits - 1, 4) for bits in _RUN_BITS)):
        head = head << bits | number
    code = np.empty(alpha.size * 2 + 24, np.uint8)
    code[:6] = np.frombuffer((head >> 5).to_bytes(6, "big"), np.uint8)
    used, held, bits = pack_alpha(np.ascontiguousarray(alpha).ravel(), code, 6, head & 31, 5)
    # The SDK fills up to a whole byte, and adds an empty one where nothing is left to fill.
    code[used] = held << (8 - bits)
    return list(code[: used + 1].tobytes())


def decode_alpha(rle: object, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width) uint8 alpha channel, 0..255, of a region's `rle`, a list of bytes.

    Raises LabelFormatError when it is no such list, is cut short, or is of a picture of another size.
    """
    from mad_backend.label_studio.rle_kernels import PADDING, unpack_alpha

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
    if values > _LONGEST_RUN * 8 * len(data):  # before memory is asked for: a few bytes can claim any size
        raise LabelFormatError(f"brush RLE is cut short: {len(data)} bytes cannot hold {values} values")
    alpha = np.empty(height * width, np.uint8)
    padded = np.frombuffer(data + bytes(PADDING), np.uint8)
    found = unpack_alpha(padded, _HEAD_BITS, np.array(run_bits), values, alpha)
    if found < values:
        raise LabelFormatError(f"brush RLE is cut short: {found} of {values} values are there")
    return alpha.reshape(height, width)


def _bytes(rle: object) -> bytes:
    try:
        data = bytes(rle) if isinstance(rle, list) else b""
    except (TypeError, ValueError):
        data = b""
    if len(data) * 8 < _HEAD_BITS:
        raise LabelFormatError(f"brush RLE: wanted a list of bytes, came {str(rle)[:40]!r}")
    return data
