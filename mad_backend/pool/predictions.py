"""Label maps of the whole pool, by model: compressed runs in few large append-only shards.

A shard is a row of blocks. A block is what one chunk of images gave, written and synced at once:

    header   magic, CRC-32 of index and ids, number of maps, bytes of ids, bytes of frames
    index    one `ENTRY` a map: key and digest of the image, length and CRC-32 of its frame, runs, shape
    ids      image ids, UTF-8, each after its length (uint16)
    frames   zstd frames, each a `RunMap`'s payload

What a kill tore off can only be the last block; it is cut off when the pack is opened for writing, so a block is there
as a whole or not at all. Damage elsewhere loses the block it hits and no other: reading goes on at the next magic.
"""

import fcntl
import logging
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import zstandard
from numpy.typing import NDArray

from mad_backend.core.labels import LabelMap
from mad_backend.core.runs import RunMap
from mad_backend.errors import CorruptFileError, StoreError
from mad_backend.pool.ids import KeyIndex, image_key, image_keys

log = logging.getLogger(__name__)

MAGIC: Final = b"MADBLOCK"
HEADER: Final = struct.Struct("<8sIIII")
ENTRY: Final = np.dtype(
    [
        ("key", "<u8"),
        ("digest", "<u8"),
        ("length", "<u4"),
        ("crc", "<u4"),
        ("runs", "<u4"),
        ("height", "<u2"),
        ("width", "<u2"),
    ]
)
ROW: Final = np.dtype([*ENTRY.descr, ("shard", "<u4"), ("offset", "<u8")])
"""An entry, and where its frame lies."""
SHARD_BYTES: Final = 1 << 30
"""A shard that has reached this size is followed by a new one."""
LEVEL: Final = 1
"""zstd level of runs: 3 and 9 gain less than 4 % on real maps."""


@dataclass(frozen=True)
class EncodedMap:
    """A label map as it is stored: `count` runs of a (height, width) map in a zstd frame."""

    height: int
    width: int
    count: int
    frame: bytes

    @classmethod
    def of(cls, label_map: LabelMap) -> "EncodedMap":
        """Of a (H, W) uint8 map, each side below 65,536 pixels. The same map gives the same bytes."""
        runs = RunMap.of(label_map)
        return cls(runs.height, runs.width, runs.count, zstandard.compress(runs.payload, LEVEL))


@dataclass(frozen=True)
class StoredMap:
    """What `PredictionPack.append` takes: `digest` says of which content of the image this is the map."""

    image_id: str
    digest: int
    encoded: EncodedMap


class PredictionPack:
    """The label maps of one model key; written by one process at a time, read by any number and by many threads.

    Raises StoreError when it is opened for writing while another process writes it.
    """

    def __init__(self, folder: Path, *, writable: bool = False, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = folder
        self._shard_bytes = shard_bytes
        self._files: list[int] = []
        self._ends: list[int] = []
        self._table = np.zeros(0, ROW)
        self._rows = 0
        self._index = KeyIndex()
        self._local = threading.local()
        self._lock = _lock(folder) if writable else None
        self.refresh()
        if writable:
            for file, end in zip(self._files, self._ends, strict=True):
                os.ftruncate(file, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __contains__(self, image_id: str) -> bool:
        return self._index.row(image_key(image_id)) is not None

    def __len__(self) -> int:
        return len(self._index)

    def digests(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
        """Of n image keys: (n,) whether there is a map, and (n,) of which content of the image (0 if none)."""
        rows = self._index.rows(keys)
        found = rows >= 0
        digests = np.zeros(len(keys), np.uint64)
        digests[found] = self._table["digest"][rows[found]]
        return found, digests

    def append(self, maps: Sequence[StoredMap]) -> None:
        """Writes the maps of one chunk as one block: on disk when this returns, as a whole or not at all."""
        if self._lock is None:
            raise ValueError(f"{self.folder} is not open for writing")
        if not maps:
            return
        if not self._files or self._ends[-1] >= self._shard_bytes:
            self._open(len(self._files), os.O_RDWR | os.O_CREAT)
        index, ids, frames = _index_of(maps), _ids_of(maps), b"".join(m.encoded.frame for m in maps)
        crc = zlib.crc32(ids, zlib.crc32(index.tobytes()))
        block = HEADER.pack(MAGIC, crc, len(maps), len(ids), len(frames)) + index.tobytes() + ids + frames
        shard, start = len(self._files) - 1, self._ends[-1]
        written = 0
        while written < len(block):
            written += os.pwrite(self._files[shard], block[written:], start + written)
        os.fsync(self._files[shard])
        self._ends[shard] = start + len(block)
        self._add(index, shard, self._ends[shard] - len(frames))

    def read(self, image_id: str) -> LabelMap:
        """The (H, W) uint8 map of an image; raises KeyError if there is none, CorruptFileError if it is damaged."""
        return self.read_runs(image_id).label_map()

    def read_runs(self, image_id: str) -> RunMap:
        """As `read`, without making pixels of the runs."""
        row = self._index.row(image_key(image_id))
        if row is None:
            raise KeyError(image_id)
        if not self._files:
            raise ValueError(f"{self.folder} is closed")
        entry = self._table[row]
        frame = os.pread(self._files[entry["shard"]], int(entry["length"]), int(entry["offset"]))
        if zlib.crc32(frame) != int(entry["crc"]):
            raise CorruptFileError(
                f'{self.folder}: the label map of "{image_id}" fails its checksum; delete the folder and scan again'
            )
        if not hasattr(self._local, "decompressor"):  # it keeps state, so each thread has its own
            self._local.decompressor = zstandard.ZstdDecompressor()
        payload = self._local.decompressor.decompress(frame)
        return RunMap(int(entry["height"]), int(entry["width"]), int(entry["runs"]), payload)

    def refresh(self) -> None:
        """Takes notice of what another process has appended since."""
        shard = max(0, len(self._files) - 1)
        while shard < len(self._files) or self._path(shard).exists():
            if shard == len(self._files):
                self._open(shard, os.O_RDONLY if self._lock is None else os.O_RDWR)
            self._read_index(shard)
            shard += 1

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.pack"

    def _open(self, shard: int, flags: int) -> None:
        self._files.append(os.open(self._path(shard), flags, 0o644))
        self._ends.append(0)

    def _read_index(self, shard: int) -> None:
        """Adds every whole block from the last known end on; steps over damage to the next block."""
        file, place = self._files[shard], self._ends[shard]
        size = os.fstat(file).st_size
        while place < size:
            found = _block_at(file, place, size)
            if found is None:
                further = _next_block(file, place + 1, size)
                if further is None:
                    return
                log.warning(
                    "%s is damaged at byte %d; its maps are predicted again", self._path(shard), place
                )
                place = further
                continue
            index, frames = found
            place = frames + int(index["length"].sum(dtype=np.int64))
            self._add(index, shard, frames)
            self._ends[shard] = place

    def _add(self, index: NDArray[np.void], shard: int, frames: int) -> None:
        wanted = self._rows + len(index)
        if wanted > len(self._table):
            grown = np.zeros(max(wanted, 2 * len(self._table)), ROW)
            grown[: self._rows] = self._table[: self._rows]
            self._table = grown
        rows = self._table[self._rows : wanted]
        for name in ENTRY.names or ():
            rows[name] = index[name]
        rows["shard"] = shard
        rows["offset"] = frames + np.cumsum(index["length"], dtype=np.uint64) - index["length"]
        self._index.add(index["key"])
        self._rows = wanted


class PredictionStore:
    """Packs by model key (name and fingerprint of everything that shapes its maps)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, key: str, *, writable: bool = False) -> PredictionPack:
        return PredictionPack(self._root / key, writable=writable)


def _index_of(maps: Sequence[StoredMap]) -> NDArray[np.void]:
    index = np.zeros(len(maps), ENTRY)
    index["key"] = image_keys(m.image_id for m in maps)
    index["digest"] = [m.digest for m in maps]
    index["length"] = [len(m.encoded.frame) for m in maps]
    index["crc"] = [zlib.crc32(m.encoded.frame) for m in maps]
    index["runs"] = [m.encoded.count for m in maps]
    index["height"] = [m.encoded.height for m in maps]
    index["width"] = [m.encoded.width for m in maps]
    return index


def _ids_of(maps: Sequence[StoredMap]) -> bytes:
    return b"".join(struct.pack("<H", len(i)) + i for i in (m.image_id.encode() for m in maps))


def _block_at(file: int, place: int, size: int) -> tuple[NDArray[np.void], int] | None:
    """(index, where the frames begin) of the block at a byte, None when no whole block begins there."""
    raw = os.pread(file, HEADER.size, place)
    if len(raw) < HEADER.size:
        return None
    magic, crc, count, ids, frames = HEADER.unpack(raw)
    start = place + HEADER.size
    begin = start + count * ENTRY.itemsize + ids
    if magic != MAGIC or begin + frames > size:
        return None
    described = os.pread(file, begin - start, start)
    if zlib.crc32(described) != crc:
        return None
    index = np.frombuffer(described, ENTRY, count)
    if int(index["length"].sum(dtype=np.int64)) != frames:
        return None
    # After a power cut the last block may have its index on disk and not its frames.
    if begin + frames == size and not _frames_are_whole(os.pread(file, frames, begin), index):
        return None
    return index, begin


def _frames_are_whole(frames: bytes, index: NDArray[np.void]) -> bool:
    ends = np.cumsum(index["length"], dtype=np.int64).tolist()
    starts = [0, *ends[:-1]]
    checks = index["crc"].tolist()
    return all(zlib.crc32(frames[a:b]) == crc for a, b, crc in zip(starts, ends, checks, strict=True))


def _next_block(file: int, place: int, size: int) -> int | None:
    """The first byte from `place` on at which a whole block begins."""
    step = 1 << 20
    while place < size:
        piece = os.pread(file, step + len(MAGIC), place)
        at = piece.find(MAGIC)
        while at >= 0:
            if _block_at(file, place + at, size):
                return place + at
            at = piece.find(MAGIC, at + 1)
        place += step
    return None


def _lock(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreError(
            f"{folder} is being written by another process; wait for that scan, or stop it first"
        ) from None
    return lock
