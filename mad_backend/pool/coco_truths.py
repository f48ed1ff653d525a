"""Label maps of COCO: panoptic PNGs, and instances in a JSON file.

The formats are those of cocodataset.org (Data format, sections 1 and 4). Crowd regions are void: they are outlines of
groups, gaps included.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.errors import ImageError
from mad_backend.pool.coco_shapes import covered
from mad_backend.pool.files import read_bytes
from mad_backend.pool.images import MAX_PIXELS, read_rgb


class Segment(NamedTuple):
    """A segment of a panoptic PNG by its id there, and its class in the label set."""

    segment_id: int
    class_id: int


@dataclass(frozen=True)
class PanopticSegments:
    """A PNG whose colours are segment ids, R + 256 G + 65536 B; 0 is void. `segments` are in order of their ids."""

    segments: tuple[Segment, ...]

    def read(self, path: Path) -> LabelMap:
        ids = read_rgb(path).astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        known = np.array([0, *(s.segment_id for s in self.segments)], np.int32)
        classes = np.array([VOID, *(s.class_id for s in self.segments)], np.uint8)
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        is_unknown = known[place] != ids
        if is_unknown.any():
            raise ImageError(
                f"panoptic label map {path} has segment {ids[is_unknown][0]}, which its JSON file does not have; give "
                "PNGs and JSON of the same export"
            )
        label_map: LabelMap = classes[place]
        return label_map

    def content(self, path: Path) -> bytes:
        """What the label map depends on."""
        return repr(self).encode() + read_bytes(path)


class Part(NamedTuple):
    """An annotation in a JSON file: which bytes it is, and its class in the label set."""

    start: int
    length: int
    class_id: int


@dataclass(frozen=True)
class InstanceParts:
    """The annotations of one image in a COCO JSON file, of which nothing else is read.

    `image` is the image's id in the file; `rest` the class of pixels that no annotation covers. Where annotations
    overlap, the one that covers fewer pixels of the image is on top, of equals the later one; crowds are below all.
    """

    image: int
    height: int
    width: int
    rest: int
    parts: tuple[Part, ...]

    def read(self, path: Path) -> LabelMap:
        where = f"label map of image {self.image} in {path}"
        if self.height * self.width > MAX_PIXELS:
            raise ImageError(
                f"{where}: {self.width} x {self.height} pixels are more than {MAX_PIXELS:,}, the limit"
            )
        label_map = np.full((self.height, self.width), self.rest, np.uint8)
        nothing = self.height * self.width + 2
        fewest = np.full((self.height, self.width), nothing, np.int32)
        for number, (part, annotation) in enumerate(zip(self.parts, self._annotations(path), strict=True)):
            told = f"{where}, its annotation {number + 1}"
            window, mask = covered(annotation.get("segmentation"), self.height, self.width, told)
            is_crowd = bool(annotation.get("iscrowd"))
            area = nothing - 1 if is_crowd else int(mask.sum())
            on_top = mask & (fewest[window] >= area)
            fewest[window][on_top] = area
            label_map[window][on_top] = VOID if is_crowd else part.class_id
        return label_map

    def content(self, path: Path) -> bytes:
        """What the label map depends on, which is not where in the file the annotations are."""
        known = (self.height, self.width, self.rest, [part.class_id for part in self.parts])
        return b"\n".join((repr(known).encode(), *self._texts(path)))

    def _annotations(self, path: Path) -> Iterator[dict[str, Any]]:
        for text in self._texts(path):
            try:
                annotation = json.loads(text)
                is_own = annotation["image_id"] == self.image
            except (ValueError, TypeError, KeyError, RecursionError):
                is_own = False
            if not is_own:
                raise ImageError(
                    f"label map of image {self.image}: {path} has changed since it was listed; start the command again"
                )
            yield annotation

    def _texts(self, path: Path) -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                for part in self.parts:
                    file.seek(part.start)
                    yield file.read(part.length)
        except OSError as error:
            raise ImageError(
                f"label map of image {self.image}: {path} cannot be read: {error.strerror}"
            ) from error
