"""A plain encoder of brush RLE, from the description of the format, bit by bit."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

RUN_BITS: Final = (3, 4, 8, 16)


def rle_of(values: NDArray[np.uint8], *, literal_packs: bool = False) -> list[int]:
    """Bytes of a flat RGBA picture: every run a block or, as the front end writes, many single words in one block."""
    bits = f"{values.size:032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in RUN_BITS)
    edges = np.flatnonzero(np.diff(values, prepend=~values[:1], append=~values[-1:]))
    runs = [(int(values[a]), int(b - a)) for a, b in pairwise(edges)]
    pack: list[int] = []
    for word, length in [*runs, (0, 0)]:
        if literal_packs and length == 1:
            pack.append(word)
            continue
        while pack:
            first, pack = pack[:256], pack[256:]
            bits += f"010{len(first) - 1:08b}" + "".join(f"{w:08b}" for w in first)
        for start in range(0, length, 1 << 16):
            part = min(length - start, 1 << 16)
            place = next(n for n, size in enumerate(RUN_BITS) if part <= 1 << size)
            bits += f"1{place:02b}{part - 1:0{RUN_BITS[place]}b}{word:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
