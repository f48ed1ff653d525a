"""One Parquet file of scores: its columns, how they are encoded, and which older rows it replaces.

Any Parquet reader can use the files; areas are two lists a map, class ids and pixels. Measured on 262,144 images of 3-6
classes: byte-stream-split pixels with lz4 take 71 bytes an image and are read at 7.7 million images/s a core (zstd: 66
bytes, 6.0 million; dictionaries, Parquet's default: 88 bytes, 5 million, and twice the time to write).
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mad_backend.core.id_column import IdColumn
from mad_backend.core.scores import ClassAreas, PairScores
from mad_backend.errors import CorruptFileError
from mad_backend.pool.ids import image_keys

GROUP_ROWS: Final = 1 << 16
"""Rows of a row group, the most that is in memory at once."""


def _lists(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


SCHEMA: Final = pa.schema(
    [
        # No column has nulls, and said so it is read a quarter faster.
        pa.field(name, kind, nullable=False)
        for name, kind in {
            "image_id": pa.string(),
            "key": pa.uint64(),
            "digest": pa.uint64(),
            "looks": pa.uint64(),
            "pixels": pa.uint32(),
            "miou": pa.float64(),
            "pixel_agreement": pa.float64(),
            "target_classes": _lists(pa.uint8()),
            "target_pixels": _lists(pa.uint32()),
            "competitor_classes": _lists(pa.uint8()),
            "competitor_pixels": _lists(pa.uint32()),
        }.items()
    ]
)
_DICTIONARIES: Final = ["pixels", "target_classes.list.element", "competitor_classes.list.element"]
_ENCODINGS: Final = {
    "image_id": "DELTA_BYTE_ARRAY",
    "target_pixels.list.element": "BYTE_STREAM_SPLIT",
    "competitor_pixels.list.element": "BYTE_STREAM_SPLIT",
}
_REPLACED_KEYS: Final = "mad.replaced_keys"
_REPLACED_PARTS: Final = "mad.replaced_parts"


@dataclass(frozen=True)
class ScorePart:
    """An open file: rows of older parts with a key in `replaced_keys` do not count, nor parts in `replaced_parts`."""

    number: int
    path: Path
    file: pq.ParquetFile
    replaced_keys: NDArray[np.uint64]
    replaced_parts: frozenset[int]

    @property
    def rows(self) -> int:
        return int(self.file.metadata.num_rows)

    def read(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One row group; raises CorruptFileError."""
        try:
            return self.file.read_row_group(group, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _corrupt(self.path, error) from error

    @property
    def groups(self) -> range:
        return range(self.file.num_row_groups)


def part_path(folder: Path, number: int) -> Path:
    """Where part `number` lies, or would."""
    return folder / f"scores-{number:05d}.parquet"


def part_numbers(folder: Path) -> list[int]:
    """Oldest first."""
    return sorted(int(path.stem.removeprefix("scores-")) for path in folder.glob("scores-*.parquet"))


def open_part(folder: Path, number: int) -> ScorePart:
    """Raises FileNotFoundError, or CorruptFileError naming the file."""
    path = part_path(folder, number)
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        notes = file.metadata.metadata or {}
        keys = np.frombuffer(base64.b64decode(notes[_REPLACED_KEYS.encode()]), "<u8")
        parts = notes[_REPLACED_PARTS.encode()].decode().split()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _corrupt(path, error) from error
    return ScorePart(number, path, file, keys, frozenset(int(part) for part in parts))


def write_part(
    folder: Path,
    number: int,
    table: pa.Table,
    replaced_keys: NDArray[np.uint64],
    replaced_parts: Sequence[int] = (),
) -> Path:
    """Writes a table of `SCHEMA`, on disk as a whole or not at all; the same input gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = part_path(folder, number)
    temporary = path.with_suffix(".tmp")
    notes = {
        _REPLACED_KEYS: base64.b64encode(replaced_keys.astype("<u8").tobytes()).decode(),
        _REPLACED_PARTS: " ".join(str(part) for part in sorted(replaced_parts)),
    }
    with temporary.open("wb") as file:
        with pq.ParquetWriter(
            file,
            SCHEMA,
            compression="lz4",
            use_dictionary=_DICTIONARIES,
            column_encoding=_ENCODINGS,
            write_statistics=False,
            store_schema=False,
        ) as writer:
            writer.write_table(table, row_group_size=GROUP_ROWS)
            writer.add_key_value_metadata(notes)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(folder)
    return path


def sync_folder(folder: Path) -> None:
    """Brings names that were added or taken away to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def table_of(scores: PairScores) -> pa.Table:
    """Raises ValueError when an image is there twice."""
    keys = image_keys(scores.image_ids)
    if len(np.unique(keys)) != len(keys):
        raise ValueError("scores to append hold an image twice")
    target, competitor = scores.target, scores.competitor
    columns = [
        pa.array(list(scores.image_ids), pa.string()),
        *(pa.array(c) for c in (keys, scores.digests, scores.looks, scores.pixels)),
        *(pa.array(c) for c in (scores.miou, scores.pixel_agreement)),
        *(
            _list_array(areas, values)
            for areas in (target, competitor)
            for values in (areas.class_ids, areas.pixels)
        ),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def scores_in(table: pa.Table) -> PairScores:
    """The columns of a table of `SCHEMA`, not copied."""
    table = table.combine_chunks()
    return PairScores(
        image_ids=_ids(table),
        digests=table["digest"].to_numpy(),
        looks=table["looks"].to_numpy(),
        pixels=table["pixels"].to_numpy(),
        miou=table["miou"].to_numpy(),
        pixel_agreement=table["pixel_agreement"].to_numpy(),
        target=_areas(table, "target"),
        competitor=_areas(table, "competitor"),
    )


def _list_array(areas: ClassAreas, values: NDArray[np.uint8] | NDArray[np.uint32]) -> pa.ListArray:
    kind = _lists(pa.from_numpy_dtype(values.dtype))
    return pa.ListArray.from_arrays(pa.array(areas.offsets, pa.int32()), pa.array(values), type=kind)


def _ids(table: pa.Table) -> IdColumn:
    column = _only_chunk(table, "image_id")
    _, offsets, text = column.buffers()
    return IdColumn(
        np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4),
        np.frombuffer(text or b"", np.uint8),
    )


def _areas(table: pa.Table, model: str) -> ClassAreas:
    class_ids = _only_chunk(table, f"{model}_classes")
    pixels = _only_chunk(table, f"{model}_pixels")
    return ClassAreas(class_ids.offsets.to_numpy(), class_ids.values.to_numpy(), pixels.values.to_numpy())


def _only_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _corrupt(path: Path, error: Exception) -> CorruptFileError:
    return CorruptFileError(f"{path} cannot be read as scores ({error}); delete it and run `mad scan` again")
