"""A mask as Label Studio's bitmask tag keeps it: a PNG data URL in RGBA, at the image's size, the mask in its alpha."""

import base64
import binascii
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.labels import LabelMap
from mad_backend.errors import LabelFormatError

_DATA_URL: Final = "data:image/png;base64,"
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_RGBA8: Final = bytes((8, 6, 0, 0, 0))
"""Bit depth, colour type, compression, filter, interlacing, as the browser and we write them."""

_DAMAGE: Final = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AssertionError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises on damaged PNGs; without a palette it fails an assertion."""


def encode_bitmasks(label_map: LabelMap, colors: Mapping[int, tuple[int, int, int]]) -> dict[int, str]:
    """For each class id in `colors` the data URL of its mask in a (H, W) map, in its colour."""
    from mad_backend.label_studio.png_writing_kernels import changed_runs, pack_mask

    height, width = label_map.shape
    runs = changed_runs(np.ascontiguousarray(label_map))
    urls = {}
    for class_id, color in colors.items():
        pixels = pack_mask(runs, class_id, np.array([*color, 255]), height, width)
        header = struct.pack(">II", width, height) + _RGBA8
        chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", pixels.tobytes()), _chunk(b"IEND", b""))
        urls[class_id] = _DATA_URL + base64.b64encode(_SIGNATURE + b"".join(chunks)).decode()
    return urls


def _chunk(kind: bytes, content: bytes) -> bytes:
    told = kind + content
    return struct.pack(">I", len(content)) + told + struct.pack(">I", zlib.crc32(told))


def decode_bitmask(url: object, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width) uint8 alpha channel of a PNG data URL; its size is checked before the pixels are unpacked.

    Raises LabelFormatError when it is no such PNG, or has no alpha.
    """
    if not (isinstance(url, str) and url.startswith(_DATA_URL)):
        raise LabelFormatError(f"wanted a PNG data URL, came {str(url)[:40]!r}")
    try:
        png = base64.b64decode(url[len(_DATA_URL) :], validate=True)
        size, layout, pixels = _chunks(png)
    except (binascii.Error, ValueError, struct.error) as error:
        raise LabelFormatError(f"mask is not a readable PNG ({error})") from error
    if size != (width, height):
        raise LabelFormatError(f"mask is {size}, the image is {(width, height)}")
    return _alpha(pixels, height, width) if layout == _RGBA8 else _alpha_of_any(png)


def _chunks(png: bytes) -> tuple[tuple[int, int], bytes, bytes]:
    """(width, height), the rest of the header, and the zlib stream of the pixels; raises ValueError for damage."""
    if not png.startswith(_SIGNATURE):
        raise ValueError("no PNG signature")
    header, pixels, at, kind = b"", [], len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", png, at)
        (checksum,) = struct.unpack_from(">I", png, at + 8 + length)
        content = png[at + 8 : at + 8 + length]
        at += 12 + length
        if kind not in {b"IHDR", b"IDAT"}:
            continue
        if zlib.crc32(kind + content) != checksum:
            raise ValueError(f"checksum of {kind.decode()} is wrong")
        if kind == b"IHDR":
            header = content
        else:
            pixels.append(content)
    width, height, layout = struct.unpack(">II5s", header)
    return (width, height), layout, b"".join(pixels)


def _alpha(pixels: bytes, height: int, width: int) -> NDArray[np.uint8]:
    from mad_backend.label_studio.png_kernels import PADDING, inflate, unfilter_alpha

    rows = np.empty((height, 1 + 4 * width), np.uint8)
    alpha = np.empty((height, width), np.uint8)
    # Two bytes zlib header before, four of checksum behind, which the chunks' own checksums make superfluous.
    packed = np.frombuffer(pixels[2:-4] + bytes(PADDING), np.uint8)
    if not (inflate(packed, rows.reshape(-1)) and unfilter_alpha(rows, alpha)):
        raise LabelFormatError("mask is not a readable PNG (its pixels cannot be unpacked)")
    return alpha


def _alpha_of_any(png: bytes) -> NDArray[np.uint8]:
    """The rarer kinds: palettes, grey, 16 bits (of which the high byte counts), interlaced; size checked before."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            if not picture.has_transparency_data:
                raise LabelFormatError(f"mask has no alpha channel (mode {picture.mode})")
            return np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.uint8)
    except _DAMAGE as error:
        raise LabelFormatError(f"mask is not a readable PNG ({error})") from error
