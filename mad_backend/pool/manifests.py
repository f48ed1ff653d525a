"""Manifests: files of text, CSV, JSON lines or Parquet that name images, one a row."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mad_backend.errors import PoolError
from mad_backend.pool.files import Options, is_address, read_list, shown

FORMATS: Final = (".txt", ".csv", ".jsonl", ".parquet")
COLUMNS: Final = ("image", "id", "mask", "etag")
"""`image` must be there. `etag` is whatever changes when the image's bytes do; it spares asking the image's store."""

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""What images are called: a folder's other files are left alone, and ids are names without these."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: the image's address, its id (without the source's name), and what else the row says of it."""

    row: int
    address: str
    image_id: str
    mask: Path | None = None
    etag: str = ""


def read_manifest(
    place: Path | str, base: Path | str | None, options: Options, what: str, masks: Path | None = None
) -> Iterator[Entry]:
    """Every row in order; rows are counted from 1, as an editor counts lines (Parquet: rows of the table).

    Relative images are relative to `base`, or to the manifest's own folder; relative masks to `masks`, or to that
    folder. `what` begins the message of the PoolError that names file, row and what was wanted.
    """
    home = _folder_of(place)
    base = home if base is None else base
    name, is_foreign = f"{what}: {shown(place)}", is_address(place)
    for row, found in _rows(place, options, what):
        where = f"{name}, row {row}"
        named = found.get("image")
        if not isinstance(named, str) or not named.strip():
            raise PoolError(
                f'{where}: wanted the address or path of an image under "image", got {named!r:.80}'
            )
        address, default_id = _located(named.strip(), base, is_foreign, where)
        given_id, mask, etag = (found.get(key) for key in COLUMNS[1:])
        image_id = default_id if given_id in (None, "") else str(given_id)
        drawn = None if mask in (None, "") else _mask(str(mask), masks, home, is_foreign, where)
        yield Entry(row, address, image_id, drawn, "" if etag is None else str(etag))


def without_suffix(name: str) -> str:
    """`name` without the suffix of an image file; other dots belong to the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix.lower()}" in SUFFIXES and stem and stem[-1] != "/" else name


def _rows(place: Path | str, options: Options, what: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    suffix = os.path.splitext(str(place).partition("?")[0] if is_address(place) else place)[1].lower()  # noqa: PTH122 - or an address
    if suffix not in FORMATS:
        raise PoolError(
            f"{what}: {shown(place)} is no manifest by its name; wanted one of {', '.join(FORMATS)}"
        )
    data = read_list(place, options, what)
    name = f"{what}: {shown(place)}"
    if suffix == ".parquet":
        yield from _parquet_rows(data, name)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PoolError(
            f"{name} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if suffix == ".txt":
        lines = enumerate(text.splitlines(), start=1)
        yield from (
            (n, _text_row(line)) for n, line in lines if line.strip() and not line.lstrip().startswith("#")
        )
    elif suffix == ".csv":
        yield from _csv_rows(text, name)
    else:
        yield from _json_rows(text, name)


def _text_row(line: str) -> dict[str, str]:
    """An image, which may have spaces in its name, or an image and its mask if both look like names of images."""
    columns = line.split()
    if len(columns) == 2 and all(without_suffix(column) != column for column in columns):
        return {"image": columns[0], "mask": columns[1]}
    return {"image": line}


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [column.strip() for column in reader.fieldnames or ()]
        _check_columns(columns, name)
        reader.fieldnames = columns
        for found in reader:
            if None in found:
                raise PoolError(
                    f"{name}, row {reader.line_num}: wanted {len(columns)} values, got more; quote commas"
                )
            yield reader.line_num, found
    except csv.Error as error:
        raise PoolError(f"{name}, row {reader.line_num}: not CSV: {error}") from None


def _json_rows(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for row, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise PoolError(f"{name}, row {row}: not JSON: {error}") from None
        if not isinstance(found, dict) or "image" not in found:
            raise PoolError(f'{name}, row {row}: wanted {{"image": ..., "id": ...}}, got {line.strip()[:80]}')
        yield row, found


def _parquet_rows(data: bytes, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    row = 0
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        columns = file.schema_arrow.names
        _check_columns(columns, name)
        for batch in file.iter_batches(columns=[c for c in COLUMNS if c in columns]):
            for found in batch.to_pylist():
                row += 1
                yield row, found
    except (pa.ArrowException, OSError) as error:
        raise PoolError(f"{name} is not a Parquet file: {error}") from None


def _check_columns(columns: list[str], name: str) -> None:
    if "image" not in columns:
        raise PoolError(f'{name}: wanted a column "image", got {", ".join(columns) or "none"}')


def _located(named: str, base: Path | str, is_foreign: bool, where: str) -> tuple[str, str]:
    """(address, id) of what a row names; a manifest of another machine may name local images below `base` only."""
    scheme, has_scheme, rest = named.partition("://")
    if has_scheme and scheme != "file":
        if "::" in scheme:
            raise PoolError(f"{where}: chained addresses (a::b://c) are not read; give one address")
        address = named
    elif is_address(base) and not (has_scheme or named.startswith("/")):
        address = f"{str(base).rstrip('/')}/{named}"
    else:
        address = _local(rest if has_scheme else named, base, is_foreign, where)
    if address.startswith(f"{str(base).rstrip('/')}/"):
        relative = address[len(str(base).rstrip("/")) + 1 :]
    else:
        relative = address.partition("://")[2] or address.lstrip("/")
    if address.startswith(("http://", "https://")):
        relative = relative.partition("?")[0].partition("#")[0]
    return address, without_suffix(relative)


def _local(named: str, base: Path | str, is_foreign: bool, where: str) -> str:
    path = os.path.normpath(named if is_address(base) else os.path.join(base, named))  # noqa: PTH118 - a million rows
    if is_foreign and (is_address(base) or not path.startswith(f"{base}/")):
        raise PoolError(
            f"{where}: {named} lies on this machine, where a manifest from elsewhere may not lead"
        )
    return path


def _mask(named: str, masks: Path | None, home: Path | str, is_foreign: bool, where: str) -> Path:
    folder = home if masks is None else masks
    named = named.removeprefix("file://")
    if is_address(named) or is_address(folder):
        raise PoolError(f"{where}: mask {named} must lie on this machine; name its folder under masks")
    return Path(_local(named, folder, is_foreign, where))


def _folder_of(place: Path | str) -> Path | str:
    return place.parent if isinstance(place, Path) else place.partition("?")[0].rpartition("/")[0]
