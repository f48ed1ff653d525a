"""What was found of every (image, target, competitor): both distances and all areas, in Parquet parts.

Parts are never changed. An image that is scored again comes in a newer part, which names the rows it replaces; small
parts are united in a larger one, which names the parts it replaces. So every part is there as a whole or not at all,
and whatever a kill left behind reads as if it had not been: what is replaced does not count, deleted or not.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mad_backend.core.scores import PairScores
from mad_backend.pool.score_parts import (
    GROUP_ROWS,
    ScorePart,
    open_part,
    part_numbers,
    part_path,
    scores_in,
    sync_folder,
    table_of,
    write_part,
)

SMALL_PARTS: Final = 64
"""So many small parts are united, however few rows they have: opening one costs as much as reading 5,000 rows."""


@dataclass(frozen=True)
class _Known:
    """Keys in ascending order with the digest of each, as long as the folder holds these parts."""

    numbers: list[int]
    keys: NDArray[np.uint64]
    digests: NDArray[np.uint64]


class ScoreStore:
    """Scores by (target key, competitor key); written by one process at a time, read by any number."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cache: dict[tuple[str, str], _Known] = {}

    def append(self, target: str, competitor: str, scores: PairScores) -> Path | None:
        """Adds one part, None for no rows; a row of an image that is there already replaces the older one.

        On disk as a whole when this returns. The same calls in the same order give the same files, whatever was killed
        and repeated in between. Raises ValueError when `scores` holds an image twice.
        """
        if not len(scores):
            return None
        table = table_of(scores)
        known = self._known(target, competitor)
        folder = self._folder(target, competitor)
        _unite_small_parts(folder)
        keys = table["key"].to_numpy()
        number = max(part_numbers(folder), default=-1) + 1
        path = write_part(folder, number, table, np.sort(keys[_is_among(keys, known.keys)]))
        self._cache[target, competitor] = _with_rows(known, keys, scores.digests, part_numbers(folder))
        return path

    def read(self, target: str, competitor: str) -> Iterator[PairScores]:
        """Every image of a pair once, at most 65,536 at a time; images that are no longer in the pool are left out.

        Raises CorruptFileError naming the file.
        """
        absent = self.absent(target, competitor)
        for table in _tables(_open_parts(self._folder(target, competitor)), absent):
            yield scores_in(table)

    def known(self, target: str, competitor: str) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(n,) image keys of a pair in ascending order, and (n,) digests: which content of each image was compared."""
        known = self._known(target, competitor)
        return known.keys, known.digests

    def holds(
        self, target: str, competitor: str, keys: NDArray[np.uint64], digests: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """(n,) whether each image, by key, has scores of the content that its digest names."""
        known = self._known(target, competitor)
        held = _is_among(keys, known.keys)
        held[held] = known.digests[np.searchsorted(known.keys, keys[held])] == digests[held]
        return held

    def set_absent(self, target: str, competitor: str, pool_keys: NDArray[np.uint64]) -> int:
        """Notes which images of a pair are not in the pool, given the keys of all that are; returns how many."""
        known = self._known(target, competitor).keys
        absent = known[~_is_among(known, np.sort(pool_keys))]
        path = self._folder(target, competitor) / "absent.npy"
        if not len(absent):
            path.unlink(missing_ok=True)
        elif not np.array_equal(absent, self.absent(target, competitor)):
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                np.save(file, absent)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        return len(absent)

    def absent(self, target: str, competitor: str) -> NDArray[np.uint64]:
        """Keys of stored images that were not in the pool at the last scan, in ascending order."""
        try:
            return np.asarray(np.load(self._folder(target, competitor) / "absent.npy"), np.uint64)
        except FileNotFoundError:
            return np.empty(0, np.uint64)

    def _known(self, target: str, competitor: str) -> _Known:
        folder = self._folder(target, competitor)
        numbers = part_numbers(folder)
        cached = self._cache.get((target, competitor))
        if cached is None or cached.numbers != numbers:
            cached = self._cache[target, competitor] = _read_known(folder, numbers)
        return cached

    def _folder(self, target: str, competitor: str) -> Path:
        return self._root / target / competitor


def _open_parts(folder: Path) -> list[ScorePart]:
    """The parts that count, oldest first, all open: a writer may unite and delete them meanwhile."""
    while True:
        try:
            parts = [open_part(folder, number) for number in part_numbers(folder)]
        except FileNotFoundError:
            continue  # united with others since the folder was listed
        replaced = frozenset[int]().union(*(part.replaced_parts for part in parts))
        return [part for part in parts if part.number not in replaced]


def _tables(
    parts: list[ScorePart], left_out: NDArray[np.uint64], columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """Row groups without replaced rows and those with a key in `left_out`; oldest first. `columns` must hold "key"."""
    for place, part in enumerate(parts):
        newer = [later.replaced_keys for later in parts[place + 1 :]]
        gone = np.unique(np.concatenate([left_out, *newer]))
        for group in part.groups:
            table = part.read(group, columns)
            if len(gone):
                stays = ~_is_among(table["key"].to_numpy(), gone)
                table = table if stays.all() else table.filter(pa.array(stays))
            if len(table):
                yield table


def _unite_small_parts(folder: Path) -> None:
    """Deletes what is replaced; unites the newest small parts once they are many or have rows for a row group."""
    parts = _open_parts(folder)
    count = {part.number for part in parts}
    for number in part_numbers(folder):
        if number not in count:
            part_path(folder, number).unlink()
    small = list(takewhile(lambda part: part.rows < GROUP_ROWS, reversed(parts)))[::-1]
    if len(small) < 2 or (len(small) < SMALL_PARTS and sum(part.rows for part in small) < GROUP_ROWS):
        return
    table = pa.concat_tables(_tables(small, np.empty(0, np.uint64))).combine_chunks()
    replaced = np.unique(np.concatenate([part.replaced_keys for part in small]))
    numbers = [part.number for part in small]
    write_part(folder, numbers[-1] + 1, table, replaced, numbers)
    for number in numbers:
        part_path(folder, number).unlink()
    sync_folder(folder)


def _read_known(folder: Path, numbers: list[int]) -> _Known:
    nothing = np.empty(0, np.uint64)
    tables = list(_tables(_open_parts(folder), nothing, ["key", "digest"]))
    keys = np.concatenate([nothing, *(table["key"].to_numpy() for table in tables)])
    digests = np.concatenate([nothing, *(table["digest"].to_numpy() for table in tables)])
    order = np.argsort(keys)
    return _Known(numbers, keys[order], digests[order])


def _with_rows(
    known: _Known, keys: NDArray[np.uint64], digests: NDArray[np.uint64], numbers: list[int]
) -> _Known:
    order = np.argsort(keys)
    keys, digests = keys[order], digests[order]
    is_old = _is_among(keys, known.keys)
    kept = known.digests.copy()
    kept[np.searchsorted(known.keys, keys[is_old])] = digests[is_old]
    places = np.searchsorted(known.keys, keys[~is_old])
    return _Known(
        numbers, np.insert(known.keys, places, keys[~is_old]), np.insert(kept, places, digests[~is_old])
    )


def _is_among(keys: NDArray[np.uint64], ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) whether each key is one of `ascending`."""
    if not len(ascending):
        return np.zeros(len(keys), np.bool_)
    places = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found: NDArray[np.bool_] = ascending[places] == keys
    return found
