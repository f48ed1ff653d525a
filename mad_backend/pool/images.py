"""Pixels of one image, or of one label map, whatever the file holds."""

import io
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, RgbImage
from mad_backend.core.records import Frame, PoolImage
from mad_backend.errors import ImageError
from mad_backend.pool.files import Options, read_bytes, shown

MAX_PIXELS: Final = 200_000_000
"""Larger images are refused before decoding: a small file can claim any size (decompression bomb)."""

MARGIN: Final = 2
"""How many times larger than on the grid a JPEG is decoded at least: see `decode_frame`."""

DAMAGE: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error)
"""What Pillow's readers raise on damaged files, depending on the format."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""What Pillow may take a file for, whatever its name; others start programs (EPS) or wait to be found faulty."""

_MODES: Final = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the image upright."""

# Our own limit is checked on the header; Pillow's would turn large but legal photos into warnings.
Image.MAX_IMAGE_PIXELS = None


def read_rgb(place: Path | str, options: Options | None = None) -> RgbImage:
    """`decode_rgb` of a file at a path or an address; raises as `read_bytes` does too."""
    return decode_rgb(read_bytes(place, options), str(place))


def decode_rgb(data: bytes, name: str) -> RgbImage:
    """(H, W, 3) uint8 of an image file, upright by its EXIF orientation; of an animation or a TIFF the first frame.

    16-bit grey is scaled to 8 bit, of 16-bit colours the high byte is taken; palette, CMYK and YCbCr become RGB, and
    transparency is left out. Raises ImageError naming the file, also for pixels that are RGB only by a guess (float,
    Lab).
    """
    with _opened(io.BytesIO(data), name) as image:
        return np.asarray(_upright_rgb(image, name))


def decode_frame(image: PoolImage, data: bytes, grid: Grid) -> Frame:
    """What models see of an image file: `grid.image(decode_rgb(...))`, faster for large JPEGs.

    A JPEG decoder can leave out every detail finer than 2, 4 or 8 pixels, which halves the work each time. It is let do
    so as long as what it gives is at least `MARGIN` times larger than the grid in both directions; averaging that down
    to the grid then differs from the exact way by less than 4 of 255 (mean 0.3), less than saving at quality 95 does.
    """
    name = image.path
    with _opened(io.BytesIO(data), name) as opened:
        height, width = _upright_size(opened, name)
        rows, columns = grid.shape_for(height, width)
        box = grid.box_for(height, width)
        times = min((box[2] - box[0]) / columns, (box[3] - box[1]) / rows)
        scale = _let_shrink(opened, times / MARGIN, name)
        rgb = _upright_rgb(opened, name)
        if scale > 1:
            left, top, right, bottom = (edge / scale for edge in box)
            rgb = rgb.resize((columns, rows), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        else:
            rgb = rgb if box == (0, 0, width, height) else rgb.crop(box)
            rgb = (
                rgb if rgb.size == (columns, rows) else rgb.resize((columns, rows), Image.Resampling.BILINEAR)
            )
        return Frame(image.image_id, np.asarray(rgb), (height, width), image.path)


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) as `decode_rgb` would give it, from the header alone."""
    with _opened(io.BytesIO(data), name) as image:
        return _upright_size(image, name)


def read_label_map(path: Path) -> LabelMap:
    """(H, W) uint8 class ids of an index PNG (palette or grey); raises ImageError for any other kind of image."""
    with _opened(path, str(path)) as image:
        if image.mode not in ("P", "L"):
            raise ImageError(
                f"label map {path} has mode {image.mode}; wanted an index PNG (8-bit palette or grey)"
            )
        try:
            return np.asarray(image)
        except DAMAGE as error:
            raise ImageError(f"label map {path} is damaged: {error}") from error


def _opened(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except FileNotFoundError:
        raise ImageError(f"image {name} does not exist") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"image {shown(name)} is not in a format that is read ({', '.join(_FORMATS)})"
        ) from None
    except DAMAGE as error:
        raise ImageError(f"image {shown(name)} cannot be read: {error}") from error
    try:
        _check_pixels(image, name)
    except ImageError:
        image.close()
        raise
    return image


def _check_pixels(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"image {shown(name)} has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}"
        )


def _upright_size(image: Image.Image, name: str) -> tuple[int, int]:
    """(height, width), before the pixels are read."""
    width, height = image.size
    # Pillow gives a TIFF's size as it will be once turned.
    is_turned = image.format != "TIFF" and _orientation(image, name) in (5, 6, 7, 8)
    return (width, height) if is_turned else (height, width)


def _orientation(image: Image.Image, name: str) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DAMAGE as error:
        raise ImageError(f"image {shown(name)} has damaged EXIF entries: {error}") from error


def _let_shrink(image: Image.Image, most: float, name: str) -> int:
    """Tells a JPEG decoder to give 1/2, 1/4 or 1/8 of the image's size, at `most` that part; returns which part."""
    scale = max(s for s in (1, 2, 4, 8) if s <= max(1.0, most))
    if scale == 1 or image.format not in ("JPEG", "MPO"):
        return 1
    width, height = image.size
    if _orientation(image, name) != 1 and (width % scale or height % scale):
        return 1  # the last, partial pixel would no longer be at the right and bottom edge
    image.draft(None, (width // scale, height // scale))
    return scale


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        _check_pixels(image, name)  # a header may be corrected while pixels are read
        turn = _TURNS.get(_orientation(image, name))
        upright = image if turn is None else image.transpose(turn)
        if upright.mode.startswith("I"):
            return Image.fromarray(_rgb_of_16_bit(np.asarray(upright)))
        if upright.mode not in _MODES:
            raise ImageError(
                f"image {shown(name)} has pixels of kind {upright.mode}, which are RGB only by a guess; save it as "
                "RGB or grey with 8 or 16 bit a channel"
            )
        if "transparency" in upright.info:
            upright = upright.convert("RGBA")
        return upright if upright.mode == "RGB" else upright.convert("RGB")
    except DAMAGE as error:
        raise ImageError(f"image {shown(name)} is damaged: {error}") from error


def _rgb_of_16_bit(grey: NDArray[np.integer[Any]]) -> RgbImage:
    scaled = (np.clip(grey, 0, 65535) // 257).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)
