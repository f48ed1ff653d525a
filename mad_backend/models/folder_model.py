"""A model that exists only as the label maps it gave: a folder of index PNGs or numpy files."""

import hashlib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.base import SegmentationModel, missing_file
from mad_backend.settings import ModelSettings

SUFFIXES = (".png", ".npy", ".npz")
"""In this order they are looked for."""
MODES = ("P", "L", "I;16", "I")
"""Pillow's names of index PNGs: palette, grey of 8 bits, of 16."""


class FolderModel(SegmentationModel):
    """`path` holds "<image id>.png", ".npy" or ".npz" (its first array): class ids (H, W) of the image's own size.

    An image without a file has no answer; a file of another size than its image is an error.
    """

    unused = frozenset(
        {
            "url",
            "config",
            "architecture",
            "encoder",
            "input_size",
            "mean",
            "std",
            "fit",
            "align_corners",
            "precision",
        }
    )

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        self._folder = settings.required_path
        if not self._folder.is_dir():
            raise missing_file(
                name, self._folder, 'a folder of label maps named "<image id>.png", .npy or .npz'
            )
        super().__init__(name, settings, labels, grid, settings.own_classes or labels.names)
        if not any(True for _ in self.files(settings)):
            raise ModelError(
                f'model "{name}": no label map (index PNG, .npy or .npz) in {self._folder} or below'
            )

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return sorted(path for path in settings.required_path.rglob("*") if path.suffix in SUFFIXES)

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        return [self._label_map(frame) for frame in frames]

    def _label_map(self, frame: Frame) -> LabelMap | None:
        candidates = (self._folder / f"{frame.image_id}{suffix}" for suffix in SUFFIXES)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            return None
        own = self._read(path)
        if own.dtype.kind not in "iu" or own.ndim != 2:
            raise ModelError(
                f'model "{self.name}": {path} holds {own.dtype} of shape {own.shape}; wanted class ids (H, W)'
            )
        if own.shape != frame.size:
            raise ModelError(
                f'model "{self.name}": {path} is {own.shape[1]} x {own.shape[0]} pixels, its image '
                f"{frame.size[1]} x {frame.size[0]}; give label maps of the image's own size"
            )
        return self.grid.label_map(self.mapped(own))

    def _read(self, path: Path) -> NDArray[Any]:
        try:
            if path.suffix == ".png":
                with Image.open(path) as image:
                    mode, own = image.mode, np.asarray(image)
                if mode not in MODES:
                    raise ModelError(f'model "{self.name}": {path} has mode {mode}; wanted an index PNG')
                return own
            with path.open("rb") as file:  # numpy does not close a damaged one
                loaded = np.load(file, allow_pickle=False)
                return loaded if isinstance(loaded, np.ndarray) else np.asarray(loaded[loaded.files[0]])
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, zipfile.BadZipFile) as error:
            raise ModelError(f'model "{self.name}": cannot read label map {path}: {error}') from error

    @classmethod
    def fingerprint(cls, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> str:  # noqa: ARG003
        """Names, sizes and times stand for the contents: hashing 100,000 maps at every start would take minutes."""
        digest = hashlib.sha256(f"{settings.classes}{settings.own_classes}{labels.names}{grid}".encode())
        folder = settings.required_path
        for path in cls.files(settings):
            status = path.stat()
            digest.update(f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:12]
