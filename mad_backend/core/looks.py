"""Which images are one and the same, by content or by look: 64 bits each (method.md section 2)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.labels import RgbImage

NEAR = 8
"""Bits by which copies may differ, and still look alike.

Measured on 1,001 VOC and COCO photos: all copies at half the size, as JPEG of quality 40 or in grey are within 6, of
copies cropped to the middle 98 % of width and height 98 % are (within 8: 99.7 %), to 95 % 67 % (85 %). Of the 500,500
pairs of different photos 2 are within 8, none within 6, 17 within 10. A mirrored copy is another photo.
"""

_PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Twin:
    """An image that is the image `of`, or the same file under another name, or alike in all but `bits` of 64 bits."""

    image_id: str
    of: str
    bits: int | None

    def __str__(self) -> str:
        if self.image_id == self.of:
            return self.image_id
        how = "is the same file as" if self.bits is None else f"looks like ({self.bits} of 64 bits differ)"
        return f"{self.image_id} {how} {self.of}"


@dataclass(frozen=True)
class Contents:
    """What n images hold: (n,) uint64 digests of their bytes, 0 where nobody read them, and (n,) perceptual hashes."""

    ids: tuple[str, ...]
    digests: NDArray[np.uint64]
    hashes: NDArray[np.uint64]

    def only(self, ids: Collection[str]) -> "Contents":
        """Those of `ids`, in the order they have here."""
        wanted = set(ids)
        rows = [row for row, image_id in enumerate(self.ids) if image_id in wanted]
        return Contents(tuple(self.ids[row] for row in rows), self.digests[rows], self.hashes[rows])

    def known(self) -> "Contents":
        """Those that somebody read."""
        return self.only({i for i, digest in zip(self.ids, self.digests.tolist(), strict=True) if digest})


def perceptual_hash(rgb: RgbImage) -> int:
    """64-bit difference hash of a (H, W, 3) uint8 image: is each of 8 x 8 cells brighter than its right neighbour?

    Copies at another size or JPEG quality differ in 3 bits at most (99 % of VOC photos), other photos in about 31.
    """
    grey = np.asarray(Image.fromarray(rgb).convert("L").resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "little")


def find_twins(images: Contents, others: Contents, near: int | None) -> list[Twin]:
    """Every image that is one of `others` by id or bytes, or looks like one in all but `near` bits (None: not asked).

    In the order of `images`, one twin an image: the first of `others` of those that differ least.
    """
    others_known, ids = others.known(), set(others.ids)
    by_digest = dict(zip(others_known.digests.tolist()[::-1], others_known.ids[::-1], strict=True))
    nearest, bits = _nearest(images.hashes, others_known.hashes)
    found = []
    for row, (image_id, digest) in enumerate(zip(images.ids, images.digests.tolist(), strict=True)):
        if image_id in ids:
            found.append(Twin(image_id, image_id, None))
        elif digest in by_digest:
            found.append(Twin(image_id, by_digest[digest], None))
        elif near is not None and digest and bits[row] <= near:
            found.append(Twin(image_id, others_known.ids[nearest[row]], int(bits[row])))
    return found


def name_twins(twins: Sequence[Twin], shown: int = 5) -> str:
    """The first of them in words, and how many more there are."""
    more = f" and {len(twins) - shown} more" if len(twins) > shown else ""
    return ", ".join(str(twin) for twin in twins[:shown]) + more


def _nearest(
    hashes: NDArray[np.uint64], others: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """(n,) row of the other that differs least, the first of equals, and (n,) by how many bits; 64 without others."""
    nearest, bits = np.zeros(len(hashes), np.intp), np.full(len(hashes), 64, np.uint8)
    step = max(1, _PAIRS_AT_ONCE // max(1, len(others)))
    for start in range(0, len(hashes) if len(others) else 0, step):
        rows = slice(start, start + step)
        differ = np.bitwise_count(hashes[rows, None] ^ others)
        nearest[rows] = differ.argmin(1)
        bits[rows] = differ.min(1)
    return nearest, bits
