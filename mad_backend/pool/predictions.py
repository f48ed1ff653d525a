"""Label maps of the whole pool, by model: one append-only pack of compressed maps each.

A record is a header (magic, CRC-32 of the rest, lengths, shape), the image id and a zstd frame (zstd-3: 50 times
smaller than raw, a third of the bytes of single PNGs). A record is appended by one write; what a kill tore off is at
the end only, and is cut off when the pack is opened for writing.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import zstandard

from mad_backend.core.labels import LabelMap
from mad_backend.errors import CorruptFileError

HEADER = struct.Struct("<4sIHIHH")
MAGIC = b"MAD1"


class PredictionPack:
    """The label maps of one model key; written by one process at a time, read by any number and by many threads."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        if writable:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        self._file: BinaryIO | None = path.open("r+b" if writable else "rb") if path.exists() else None
        self._offsets: dict[str, int] = {}
        self._end = 0
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._decompressor = zstandard.ZstdDecompressor()
        self._reading = Lock()
        self.refresh()
        if writable and self._file:
            self._file.truncate(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def missing(self, image_ids: Iterable[str]) -> list[str]:
        return [image_id for image_id in image_ids if image_id not in self._offsets]

    def refresh(self) -> None:
        """Takes notice of what another process has appended since."""
        if self._file is None and self.path.exists():
            self._file = self.path.open("rb")
        if self._file is None:
            return
        size = os.fstat(self._file.fileno()).st_size
        self._file.seek(self._end)
        while self._end + HEADER.size <= size:
            magic, crc, id_length, length, _, _ = HEADER.unpack(self._file.read(HEADER.size))
            end = self._end + HEADER.size + id_length + length
            if magic != MAGIC or end > size:
                break
            identity = self._file.read(id_length)
            if end == size and zlib.crc32(self._file.read(length), zlib.crc32(identity)) != crc:
                break
            self._file.seek(end)
            self._offsets[identity.decode(errors="replace")] = self._end
            self._end = end

    def append(self, image_id: str, label_map: LabelMap) -> None:
        """Adds one (H, W) uint8 map, each side below 65,536 pixels; on disk after `flush`."""
        if self._file is None:
            raise ValueError(f"{self.path} is not open for writing")
        identity = image_id.encode()
        frame = self._compressor.compress(np.ascontiguousarray(label_map).tobytes())
        crc = zlib.crc32(frame, zlib.crc32(identity))
        header = HEADER.pack(MAGIC, crc, len(identity), len(frame), *label_map.shape)
        self._file.seek(self._end)
        self._file.write(header + identity + frame)
        self._offsets[image_id] = self._end
        self._end += len(header) + len(identity) + len(frame)

    def flush(self) -> None:
        """Brings all appended maps to disk."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def read(self, image_id: str) -> LabelMap:
        """The (H, W) uint8 map of an image; raises KeyError if there is none, CorruptFileError on a bad checksum."""
        offset = self._offsets[image_id]
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        with self._reading:  # file position and decompressor are shared by the threads that read
            self._file.seek(offset)
            _, crc, id_length, length, height, width = HEADER.unpack(self._file.read(HEADER.size))
            identity, frame = self._file.read(id_length), self._file.read(length)
            if zlib.crc32(frame, zlib.crc32(identity)) == crc:
                raw = self._decompressor.decompress(frame, max_output_size=height * width)
                if len(raw) == height * width:
                    return np.frombuffer(raw, np.uint8).reshape(height, width)
        raise CorruptFileError(
            f'{self.path}: the label map of "{image_id}" fails its checksum; delete the file and scan again'
        )


class PredictionStore:
    """Packs by model key (name and fingerprint of everything that shapes its maps)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, key: str, *, writable: bool = False) -> PredictionPack:
        return PredictionPack(self._root / f"{key}.pack", writable=writable)
