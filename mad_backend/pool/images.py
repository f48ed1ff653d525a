"""Reading one image as RGB, or one label map, whatever the file holds."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mad_backend.core.labels import LabelMap, RgbImage
from mad_backend.errors import ImageError

MAX_PIXELS = 200_000_000
"""Larger images are refused before decoding: a small file can claim any size (decompression bomb)."""

DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error)
"""What Pillow's readers raise on damaged files, depending on the format."""

# Our own limit is checked on the header; Pillow's would turn large but legal photos into warnings.
Image.MAX_IMAGE_PIXELS = None


def read_rgb(path: Path) -> RgbImage:
    """(H, W, 3) uint8 of an image file, upright by its EXIF orientation; of an animation the first frame.

    16-bit grey is scaled to 8 bit; palette, CMYK and transparency become RGB. Raises ImageError naming the file.
    """
    with _opened(path) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):
                return _rgb_of_16_bit(np.asarray(upright))
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")
            return np.asarray(upright.convert("RGB"))
        except DAMAGE as error:
            raise ImageError(f"image {path} is damaged: {error}") from error


def read_label_map(path: Path) -> LabelMap:
    """(H, W) uint8 class ids of an index PNG (palette or grey); raises ImageError for any other kind of image."""
    with _opened(path) as image:
        if image.mode not in ("P", "L"):
            raise ImageError(
                f"label map {path} has mode {image.mode}; wanted an index PNG (8-bit palette or grey)"
            )
        try:
            return np.asarray(image)
        except DAMAGE as error:
            raise ImageError(f"label map {path} is damaged: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as `read_rgb` would give it, from the header alone."""
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise ImageError(f"image {path} does not exist") from None
    except UnidentifiedImageError:
        raise ImageError(f"image {path} is not in a format that Pillow reads") from None
    except DAMAGE as error:
        raise ImageError(f"image {path} cannot be read: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageError(
            f"image {path} has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}"
        )
    return image


def _rgb_of_16_bit(grey: NDArray[np.integer[Any]]) -> RgbImage:
    scaled = (np.clip(grey, 0, 65535) // 257).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)
