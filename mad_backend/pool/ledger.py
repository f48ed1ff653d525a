"""What is known of every image that was ever read: which content it had, so that only new content is scanned."""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mad_backend.core.records import PoolImage
from mad_backend.pool.ids import KeyIndex, image_keys

COLUMNS = ("key", "etag", "digest", "looks")


@dataclass(frozen=True)
class SeenImage:
    """An image whose bytes were read: `digest` is 64 bits of their BLAKE2b, `looks` the perceptual hash."""

    image: PoolImage
    digest: int
    looks: int


class Ledger:
    """Content of images by image id, in Parquet parts written under a temporary name and renamed.

    An image is unchanged while its source says the same of it (`PoolImage.etag`); an image of which the source says
    nothing (etag "") is never known to be unchanged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = KeyIndex()
        self._columns: dict[str, NDArray[np.uint64]] = {name: np.zeros(0, np.uint64) for name in COLUMNS}
        for part in sorted(folder.glob("part-*.parquet")):
            table = pq.read_table(part, columns=list(COLUMNS))
            self._add({name: table[name].to_numpy() for name in COLUMNS})

    def unchanged(self, images: Sequence[PoolImage]) -> NDArray[np.bool_]:
        """(n,) whether the content of each image is known and its source says that it is still the same."""
        rows = self._index.rows(image_keys(i.image_id for i in images))
        etags = image_keys(i.etag for i in images)
        said = np.fromiter((bool(i.etag) for i in images), np.bool_, len(images))
        known = rows >= 0
        same = np.zeros(len(images), np.bool_)
        same[known] = self._columns["etag"][rows[known]] == etags[known]
        return same & said

    def content(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(n,) digests and (n,) perceptual hashes of images by key, as last read; 0 where nothing is known."""
        rows = self._index.rows(keys)
        known = rows >= 0
        found = np.zeros((2, len(keys)), np.uint64)
        for values, name in zip(found, ("digest", "looks"), strict=True):
            values[known] = self._columns[name][rows[known]]
        return found[0], found[1]

    def append(self, seen: Sequence[SeenImage]) -> None:
        """Adds one part of what is not known yet; a later row of the same image replaces the earlier.

        Several processes may add to one ledger at once.
        """
        columns = {
            "key": image_keys(s.image.image_id for s in seen),
            "etag": image_keys(s.image.etag for s in seen),
            "digest": np.array([s.digest for s in seen], np.uint64),
            "looks": np.array([s.looks for s in seen], np.uint64),
        }
        rows = self._index.rows(columns["key"])
        news = [n for n, row in enumerate(rows.tolist()) if row < 0 or self._differs(row, columns, n)]
        if not news:
            return
        columns = {name: values[news] for name, values in columns.items()}
        self._write(pa.table({"image_id": [seen[n].image.image_id for n in news], **columns}))
        self._add(columns)

    def _differs(self, row: int, columns: dict[str, NDArray[np.uint64]], n: int) -> bool:
        return any(self._columns[name][row] != columns[name][n] for name in COLUMNS)

    def _write(self, table: pa.Table) -> None:
        """Under the next number, one process after the other."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            numbers = (int(p.stem.removeprefix("part-")) for p in self._folder.glob("part-*.parquet"))
            path = self._folder / f"part-{max(numbers, default=-1) + 1:05d}.parquet"
            temporary = path.with_suffix(".tmp")
            pq.write_table(table, temporary)
            temporary.replace(path)
        finally:
            os.close(lock)

    def _add(self, columns: dict[str, NDArray[np.uint64]]) -> None:
        self._columns = {name: np.concatenate([self._columns[name], columns[name]]) for name in COLUMNS}
        self._index.add(columns["key"])
