"""A model that exists only as the label maps it gave: a folder of index PNGs."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.base import SegmentationModel, missing_file
from mad_backend.settings import ModelSettings


class FolderModel(SegmentationModel):
    """`path` holds "<image id>.png", each an index PNG (palette or grey) of the image's own size.

    An image without a file has no answer; a file of another size than its image is an error.
    """

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        if not settings.path.is_dir():
            raise missing_file(name, settings.path, 'a folder of label maps named "<image id>.png"')
        super().__init__(name, settings, labels, grid, settings.own_classes or labels.names)
        if not any(True for _ in self.files(settings)):
            raise ModelError(f'model "{name}": no label map (index PNG) in {settings.path} or below')

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return sorted(settings.path.rglob("*.png"))

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        return [self._read(frame) for frame in frames]

    def _read(self, frame: Frame) -> LabelMap | None:
        path = self.settings.path / f"{frame.image_id}.png"
        if not path.is_file():
            return None
        try:
            with Image.open(path) as image:
                mode, own = image.mode, np.asarray(image)
        except (OSError, ValueError, SyntaxError) as error:
            raise ModelError(f'model "{self.name}": cannot read label map {path}: {error}') from error
        if mode not in ("P", "L"):
            raise ModelError(f'model "{self.name}": {path} has mode {mode}; wanted an index PNG')
        if own.shape != frame.size:
            raise ModelError(
                f'model "{self.name}": {path} is {own.shape[1]} x {own.shape[0]} pixels, its image '
                f"{frame.size[1]} x {frame.size[0]}; give label maps of the image's own size"
            )
        return self.grid.label_map(self.table[own])

    @classmethod
    def fingerprint(cls, settings: ModelSettings, labels: LabelSet, grid: Grid) -> str:
        """Names, sizes and times stand for the contents: hashing 100,000 maps at every start would take minutes."""
        digest = hashlib.sha256(f"{settings.classes}{settings.own_classes}{labels.names}{grid}".encode())
        for path in cls.files(settings):
            status = path.stat()
            digest.update(
                f"{path.relative_to(settings.path)} {status.st_size} {status.st_mtime_ns}\n".encode()
            )
        return digest.hexdigest()[:12]
