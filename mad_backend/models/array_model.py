"""What the models outside PyTorch share: batches of numpy arrays in, class ids or logits out."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet, RgbImage
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.base import SegmentationModel
from mad_backend.models.canvas import Canvas, Channels, Size, size_of
from mad_backend.models.choice import Place
from mad_backend.settings import ModelSettings

GREY: Channels = (128.0, 128.0, 128.0)
"""What stands around a frame on the canvas of a network that takes pixels as they are."""


class ArrayModel(SegmentationModel):
    """A network in a file of its own format; subclasses answer `answers`.

    `size` is the (height, width) that the file is fixed to, or None. Raises ModelError where settings want another.
    """

    unused = frozenset({"url", "config", "architecture", "encoder", "precision"})

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        labels: LabelSet,
        grid: Grid,
        own_classes: Sequence[str],
        size: Size | None,
    ) -> None:
        super().__init__(name, settings, labels, grid, own_classes)
        self.canvas = Canvas.of(settings, grid)
        if size is not None:
            self.canvas = self._fixed(size)
        self.batch_size = settings.batch_size

    @classmethod
    def files(cls, settings: ModelSettings) -> list[Path]:
        return [settings.required_path]

    @abstractmethod
    def answers(self, contents: Sequence[RgbImage]) -> NDArray[Any]:
        """Class ids (n, h, w) of an integer type, or logits (n, C, h, w) float32, of contents of one batch."""

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        maps: list[LabelMap | None] = [None] * len(frames)
        for indices in self.canvas.batches(frames, self.batch_size):
            contents = [self.canvas.content(frames[i].rgb) for i in indices]
            for i, content, answer in zip(indices, contents, self.answers(contents), strict=True):
                size = size_of(content)
                place = Place(self.canvas.input_size(size), size, size_of(frames[i].rgb))
                maps[i] = self._label_map(answer, place)
        return maps

    def pixels(self, contents: Sequence[RgbImage]) -> NDArray[np.uint8]:
        """(n, H, W, 3) uint8, for a network that takes pixels as they are."""
        return self.canvas.pixels(contents, self.settings.mean or GREY)

    def normalised(self, contents: Sequence[RgbImage]) -> NDArray[np.float32]:
        """(n, 3, H, W) float32, by the mean and std that `statistics` has checked."""
        return self.canvas.normalised(contents, *statistics(self.name, self.settings))

    def _label_map(self, answer: NDArray[Any], place: Place) -> LabelMap:
        if answer.ndim == 2:
            return self.mapped(place.nearest(answer))
        if len(answer) == 1 and len(self.own_classes) == 2:
            answer = np.concatenate([np.zeros_like(answer), answer])
        return np.take(self.table, place.choose(answer, align_corners=self.settings.align_corners))

    def _fixed(self, size: Size) -> Canvas:
        height, width = size
        wanted = f'model "{self.name}": {self.settings.path} takes images of {height} x {width} pixels only; '
        if self.settings.input_size is not None and self.canvas.size != size:
            raise ModelError(f"{wanted}leave input_size out")
        if self.settings.fit == "keep":
            raise ModelError(f"{wanted}write fit: pad or stretch")
        return Canvas(size, self.settings.fit)


def statistics(model: str, settings: ModelSettings) -> tuple[Channels, Channels]:
    """Mean and std of settings; raises ModelError where one is missing: the file does not tell them."""
    if settings.mean is None or settings.std is None:
        raise ModelError(
            f'model "{model}": {settings.path} takes normalised images and does not tell how; give mean and std of '
            "0..255 values, as it was trained with (for an input of 0..1: mean [0, 0, 0] and std [255, 255, 255])"
        )
    return settings.mean, settings.std
