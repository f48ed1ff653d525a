"""How frames become the input of a network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import RgbImage
from mad_backend.core.records import Frame
from mad_backend.settings import ModelFit, ModelSettings

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""
Channels: TypeAlias = tuple[float, float, float]
"""One number for each colour, of 0..255 values."""


def size_of(rgb: RgbImage) -> Size:
    """Of an image."""
    height, width = rgb.shape[:2]
    return height, width


@dataclass(frozen=True)
class Canvas:
    """The input of a network, `size` at most, and the rule by which a frame is brought there (settings' `fit`).

    What is left of a frame on its canvas is its *content*; it lies at the top left.
    """

    size: Size
    fit: ModelFit

    @classmethod
    def of(cls, settings: ModelSettings, grid: Grid) -> "Canvas":
        """As settings say; the default size is the grid's."""
        size = settings.input_size or grid.size
        return cls((size, size) if isinstance(size, int) else size, settings.fit)

    def content_size(self, frame: Size) -> Size:
        """Of a frame's content: the canvas if stretched, else the frame scaled down until it fits."""
        if self.fit == "stretch":
            return self.size
        scale = min(1.0, self.size[0] / frame[0], self.size[1] / frame[1])
        return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))

    def input_size(self, content: Size) -> Size:
        """Of the network's input with such a content on it."""
        return content if self.fit == "keep" else self.size

    def content(self, rgb: RgbImage) -> RgbImage:
        """A frame's content, area-averaged where it shrinks."""
        height, width = self.content_size(size_of(rgb))
        if size_of(rgb) == (height, width):
            return rgb
        return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))

    def batches(self, frames: Sequence[Frame], batch_size: int) -> Iterator[list[int]]:
        """Indices of frames that fit into one input, `batch_size` at most."""
        by_size: dict[Size, list[int]] = {}
        for i, frame in enumerate(frames):
            by_size.setdefault(self.input_size(self.content_size(size_of(frame.rgb))), []).append(i)
        for group in by_size.values():
            yield from (group[start : start + batch_size] for start in range(0, len(group), batch_size))

    def pixels(self, contents: Sequence[RgbImage], fill: Channels) -> NDArray[np.uint8]:
        """(n, H, W, 3) uint8: contents of one batch, each on a canvas of colour `fill`."""
        placed = np.empty((len(contents), *self.input_size(size_of(contents[0])), 3), np.uint8)
        for one, content in zip(placed, contents, strict=True):
            height, width = content.shape[:2]
            one[:height, :width] = content
            one[height:] = one[:, width:] = np.rint(fill)
        return placed

    def normalised(
        self, contents: Sequence[RgbImage], mean: Channels, std: Channels, *, is_bgr: bool = False
    ) -> NDArray[np.float32]:
        """(n, 3, H, W) float32, channels last in memory: (value - mean) / std; around a content 0, the mean colour."""
        from mad_backend.core.normalisation import normalised

        size = self.input_size(size_of(contents[0]))
        return normalised(contents, size, mean, std, is_bgr=is_bgr).transpose(0, 3, 1, 2)
