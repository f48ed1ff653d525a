"""The evaluation grid: how images and label maps are brought to the size on which models are compared."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image

from mad_backend.core.labels import VOID, LabelMap, RgbImage


class Fit(StrEnum):
    """Fit rule (Sec. 4.1, "cropped and resized to 513 x 513"): see `Grid`."""

    LETTERBOX = "letterbox"
    SQUASH = "squash"
    CROP = "crop"


@dataclass(frozen=True)
class Grid:
    """`size` is the side of the square grid in pixels.

    letterbox: scaled down, never up, until the longer side is at most `size`; aspect kept, nothing lost. Maps hold
    the image's own area only, so no padding is ever counted.
    squash: scaled to `size` x `size`, as the method's released code does.
    crop: the shorter side scaled to `size`, then the central square.
    """

    size: int = 513
    fit: Fit = Fit.LETTERBOX

    def shape_for(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) on the grid of an image of this size."""
        if self.fit is not Fit.LETTERBOX:
            return self.size, self.size
        scale = min(1.0, self.size / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def box_for(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the part of an image of this size that the grid holds."""
        if self.fit is not Fit.CROP:
            return 0, 0, width, height
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return left, top, left + side, top + side

    def image(self, rgb: RgbImage) -> RgbImage:
        """An image on the grid, area-averaged where it shrinks."""
        return self._fit(rgb, Image.Resampling.BILINEAR)

    def label_map(self, label_map: LabelMap) -> LabelMap:
        """A label map at an image's own size on the grid, nearest neighbour."""
        return self._fit(label_map, Image.Resampling.NEAREST)

    def restore(self, label_map: LabelMap, height: int, width: int) -> LabelMap:
        """A label map on the grid back at the image's own size; what `crop` had cut off is `VOID`."""
        if self.fit is not Fit.CROP:
            return _resize(label_map, height, width, Image.Resampling.NEAREST)
        left, top, right, bottom = self.box_for(height, width)
        full = np.full((height, width), VOID, np.uint8)
        full[top:bottom, left:right] = _resize(
            label_map, bottom - top, right - left, Image.Resampling.NEAREST
        )
        return full

    def _fit(self, pixels: RgbImage | LabelMap, method: Image.Resampling) -> RgbImage:
        height, width = pixels.shape[:2]
        left, top, right, bottom = self.box_for(height, width)
        return _resize(pixels[top:bottom, left:right], *self.shape_for(height, width), method)


def _resize(pixels: RgbImage | LabelMap, height: int, width: int, method: Image.Resampling) -> RgbImage:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))
