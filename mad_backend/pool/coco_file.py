"""A COCO annotation file: its images and categories, and where in the file the annotations of an image are."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mad_backend.errors import PoolError
from mad_backend.pool.files import etag_of

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()
T = TypeVar("T", int, str, list[Any])


class CocoImage(NamedTuple):
    """An entry of "images"; `height` and `width` are None where the file does not say."""

    image_id: int
    file_name: str
    height: int | None
    width: int | None


class CocoSegment(NamedTuple):
    """An entry of "segments_info"."""

    segment_id: int
    category_id: int
    is_crowd: bool


class PanopticAnnotation(NamedTuple):
    """Name of the PNG of an image, and what its colours stand for."""

    file_name: str
    segments: tuple[CocoSegment, ...]


@dataclass(frozen=True)
class CocoFile:
    """`instances` is (n, 4) int64 in order of images: image id, first byte, bytes, category id; `panoptic` by image id.

    One of the two is empty.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: Mapping[int, str]
    instances: NDArray[np.int64]
    panoptic: Mapping[int, PanopticAnnotation]

    def instances_of(self, image_id: int) -> NDArray[np.int64]:
        """(k, 3) int64: first byte, bytes, category id of each annotation, in the file's order."""
        column = self.instances[:, 0]
        first, last = np.searchsorted(column, image_id, "left"), np.searchsorted(column, image_id, "right")
        return self.instances[first:last, 1:]


def read_coco(path: Path, what: str) -> CocoFile:
    """Parses a file once for as long as it is the same; raises PoolError, which begins with `what`."""
    etag = etag_of(path)
    if not etag:
        raise PoolError(f"{what}: {path} does not exist; check coco in the settings")
    return _read(path, etag, what)


@lru_cache(maxsize=4)
def _read(path: Path, etag: str, what: str) -> CocoFile:  # noqa: ARG001 - another etag, another file
    try:
        # As Latin-1, places in the text are places in the file; what may hold other letters is decoded again.
        text = path.read_bytes().decode("latin-1")
        return _parsed(path, text)
    except OSError as error:
        raise PoolError(f"{what}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PoolError(f"{what}: {path} is not a COCO annotation file: {error}") from None


def _parsed(path: Path, text: str) -> CocoFile:
    images: list[CocoImage] = []
    categories: dict[int, str] = {}
    instances: list[tuple[int, int, int, int]] = []
    panoptic: dict[int, PanopticAnnotation] = {}
    for key, start, end, found in _elements(text):
        if key == "images":
            images.append(_image(_again(text, start, end)))
        elif key == "categories":
            entry = _again(text, start, end)
            categories[_field(entry, key, "id", int)] = _field(entry, key, "name", str)
        elif key == "annotations" and isinstance(found, dict) and "segments_info" in found:
            entry = _again(text, start, end)
            panoptic[_field(entry, key, "image_id", int)] = _panoptic(entry)
        elif key == "annotations":
            if not (isinstance(found, dict) and "segmentation" in found):
                raise ValueError(
                    f"annotation {len(instances) + 1} has neither segmentation nor segments_info (boxes and captions "
                    "are no label maps)"
                )
            ids = (_field(found, key, "image_id", int), _field(found, key, "category_id", int))
            instances.append((ids[0], start, end - start, ids[1]))
    if instances and panoptic:
        raise ValueError("it has annotations of instances and of panoptic segments; wanted one kind")
    table = np.array(instances, np.int64).reshape(-1, 4)
    order = np.argsort(table[:, 0], kind="stable")
    return CocoFile(path, tuple(images), categories, table[order], panoptic)


def _elements(text: str) -> Iterator[tuple[str, int, int, Any]]:
    """(key, start, end, value) of every element of every list at the top of a JSON object; raises ValueError."""
    at = _skip(text, 3 if text.startswith("\xef\xbb\xbf") else 0)
    if text[at : at + 1] != "{":
        raise ValueError(f'wanted {{"images": [...], "categories": [...], ...}}, got {text[at : at + 20]!r}')
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if not isinstance(key, str) or text[at : at + 1] != ":":
            raise ValueError(f'wanted a name and ":" at byte {at}')
        at = _skip(text, at + 1)
        if text[at : at + 1] != "[":
            at = _DECODER.raw_decode(text, at)[1]
        else:
            at = _skip(text, at + 1)
            while text[at : at + 1] != "]":
                value, end = _DECODER.raw_decode(text, at)
                yield key, at, end, value
                at = _next(text, end, "]")
            at += 1
        at = _next(text, at, "}")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _next(text: str, at: int, close: str) -> int:
    """Where the next element begins, or the bracket that closes the list."""
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != close:
        raise ValueError(f'wanted "," or "{close}" at byte {at}')
    return at


def _again(text: str, start: int, end: int) -> Any:
    return json.loads(text[start:end].encode("latin-1"))


def _image(entry: Any) -> CocoImage:
    name = _field(entry, "images", "file_name", str)
    size = [entry.get(side) for side in ("height", "width")]
    height, width = (side if isinstance(side, int) and side > 0 else None for side in size)
    return CocoImage(_field(entry, "images", "id", int), name, height, width)


def _panoptic(entry: Any) -> PanopticAnnotation:
    name = _field(entry, "annotations", "file_name", str)
    segments = _field(entry, "annotations", "segments_info", list)
    return PanopticAnnotation(
        name,
        tuple(
            CocoSegment(
                _field(s, "segments_info", "id", int),
                _field(s, "segments_info", "category_id", int),
                bool(s.get("iscrowd")),
            )
            for s in segments
        ),
    )


def _field(entry: Any, key: str, name: str, kind: type[T]) -> T:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 - wrapped as what is wrong with the file
            f'an entry of "{key}" wants "{name}" of type {kind.__name__}: {entry!s:.120}'
        )
    return value
