"""Image ids as 64-bit keys: a million of them fit into arrays that are searched at once."""

import hashlib
from collections.abc import Iterable, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray


def image_key(image_id: str) -> int:
    """64 bits of BLAKE2b of an image id; two of a million ids share a key once in 37 million pools."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "little")


def content_digest(data: bytes) -> int:
    """64 bits of BLAKE2b of an image file: which content of an image a label map is of."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def image_keys(image_ids: Iterable[str]) -> NDArray[np.uint64]:
    """(n,) uint64, one `image_key` an id."""
    return np.fromiter((image_key(i) for i in image_ids), np.uint64)


class KeyIndex:
    """Finds the last of n rows by key, many at once; rows are numbered in the order they were added.

    May be used by many threads: one writes a block while another compares the one before.
    """

    def __init__(self) -> None:
        self._parts: list[NDArray[np.uint64]] = []
        self._sorted: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._rows: NDArray[np.int64] = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}
        self._added = 0
        self._lock = Lock()

    def __len__(self) -> int:
        """How many different keys there are."""
        with self._lock:
            self._merge()
        return int((self._sorted[1:] != self._sorted[:-1]).sum()) + bool(len(self._sorted))

    def add(self, keys: NDArray[np.uint64] | Sequence[int]) -> None:
        """Adds rows; a later row of the same key hides the earlier."""
        part = np.asarray(keys, np.uint64)
        rows = range(self._added, self._added + len(part))
        with self._lock:
            self._parts.append(part)
            # Few new rows are kept in a dict, so that adding a block costs the block and not the whole index.
            self._recent.update(zip(part.tolist(), rows, strict=True))
            self._added += len(part)
            if len(self._recent) > 1 << 16:
                self._merge()

    def row(self, key: int) -> int | None:
        """Row of one key, None if there is none."""
        with self._lock:
            if key in self._recent:
                return self._recent[key]
            place = int(np.searchsorted(self._sorted, np.uint64(key), side="right")) - 1
            return int(self._rows[place]) if place >= 0 and int(self._sorted[place]) == key else None

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(n,) int64 rows of n keys, -1 where there is none."""
        with self._lock:
            self._merge()
            if not len(self._sorted):
                return np.full(len(keys), -1, np.int64)
            places = np.searchsorted(self._sorted, keys, side="right") - 1
            hits = (places >= 0) & (self._sorted[places] == keys)
            return np.where(hits, self._rows[places], -1)

    def _merge(self) -> None:
        if not self._recent:
            return
        self._recent.clear()
        everything = np.concatenate(self._parts)
        self._parts = [everything]
        # Stable, so that of equal keys the last added is the last found.
        order = np.argsort(everything, kind="stable")
        self._sorted, self._rows = everything[order], order
