"""Where the human label map of an image lies, and how it is read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.errors import ImageError
from mad_backend.pool.coco_truths import InstanceParts, PanopticSegments
from mad_backend.pool.files import read_bytes
from mad_backend.pool.images import read_label_map

NO_CLASS: Final = -1
"""In `IndexIds.ids`: what stands for no class; a file that has it is refused."""


@dataclass(frozen=True)
class IndexIds:
    """An index PNG of ids that are not the label set's.

    `ids` has the label set's id, `VOID` or `NO_CLASS` by the file's id; ids beyond it stand for no class. 255 is void.
    """

    ids: tuple[int, ...]

    def read(self, path: Path) -> LabelMap:
        own = read_label_map(path)
        table = np.full(256, NO_CLASS, np.int16)
        table[VOID] = VOID
        table[: len(self.ids)] = self.ids
        label_map = table[own]
        if label_map.min(initial=0) == NO_CLASS:
            stranger = int(own[label_map == NO_CLASS][0])
            raise ImageError(
                f"label map {path} has id {stranger}, which stands for no class of its source; name it in own_classes, "
                "or list it under ignore_ids"
            )
        return label_map.astype(np.uint8)

    def content(self, path: Path) -> bytes:
        """What the label map depends on."""
        return repr(self).encode() + read_bytes(path)


Coding: TypeAlias = IndexIds | PanopticSegments | InstanceParts
"""How a file that is no index PNG of the label set's ids holds a label map."""


@dataclass(frozen=True)
class Truth:
    """The human label map of one image: in `path`, an index PNG of the label set's ids unless `coding` says otherwise.

    Plain data, which other processes may be handed, pickled or as JSON by pydantic.
    """

    path: Path
    coding: Coding | None = None

    def read(self) -> LabelMap:
        """(h, w) uint8 ids of the label set, 255 = void, at the image's own size; raises ImageError."""
        return read_label_map(self.path) if self.coding is None else self.coding.read(self.path)

    def digest(self) -> str:
        """SHA-256 (hex) of what the label map depends on: the file alone where `coding` is None; raises ImageError."""
        content = read_bytes(self.path) if self.coding is None else self.coding.content(self.path)
        return hashlib.sha256(content).hexdigest()

    def __str__(self) -> str:
        if isinstance(self.coding, InstanceParts):
            return f"{self.path} (image {self.coding.image})"
        return str(self.path)
