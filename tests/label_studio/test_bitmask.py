"""Bitmasks as PNG data URLs: every kind of PNG read as Pillow reads it, and every kind of damage refused."""

import base64
import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.labels import LabelMap, Mask
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.bitmask import decode_bitmask, encode_bitmasks

PREFIX = "data:image/png;base64,"
ALPHA = np.array([[0, 127, 128, 255], [255, 1, 0, 9]], np.uint8)


def encode_bitmask(mask: Mask, color: tuple[int, int, int]) -> str:
    return encode_bitmasks(mask.view(np.uint8), {1: color})[1]


def url(png: bytes) -> str:
    return PREFIX + base64.b64encode(png).decode()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(header: tuple[int, int, bytes], pixels: bytes) -> bytes:
    """A PNG of these (width, height, rest of the header) and this zlib stream."""
    width, height, layout = header
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">II", width, height) + layout),
            chunk(b"IDAT", pixels),
            chunk(b"IEND", b""),
        )
    )


RGBA8 = bytes((8, 6, 0, 0, 0))


def saved(image: Image.Image, **options: object) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG", **options)
    return url(file.getvalue())


def rgba(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    pixels = np.full((*alpha.shape, 4), 77, np.uint8)
    pixels[..., 3] = alpha
    return pixels


@settings(deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_every_mask_survives_the_way_there_and_back(mask: Mask) -> None:
    assert np.array_equal(decode_bitmask(encode_bitmask(mask, (1, 2, 3)), *mask.shape), mask * 255)
    assert encode_bitmask(np.asfortranarray(mask), (1, 2, 3)) == encode_bitmask(mask, (1, 2, 3))


def test_our_own_are_rgba_in_the_colour_of_the_class_and_transparent_elsewhere() -> None:
    picture = Image.open(
        io.BytesIO(base64.b64decode(encode_bitmask(np.eye(2) > 0, (9, 8, 7))[len(PREFIX) :]))
    )
    assert picture.mode == "RGBA"
    assert np.asarray(picture).tolist() == [[[9, 8, 7, 255], [0] * 4], [[0] * 4, [9, 8, 7, 255]]]


SIZES = st.tuples(st.integers(1, 12), st.integers(1, 200))


@settings(deadline=None, max_examples=150)
@given(
    arrays(np.uint8, SIZES, elements=st.sampled_from([0, 0, 0, 0, 1, 2])),
    st.tuples(*[st.integers(0, 255)] * 3),
)
def test_the_classes_of_a_map_are_each_a_picture_that_pillow_and_zlib_read(
    label_map: LabelMap, color: tuple[int, int, int]
) -> None:
    urls = encode_bitmasks(label_map, dict.fromkeys((0, 1, 2, 3), color))
    for class_id, found in urls.items():
        file = base64.b64decode(found[len(PREFIX) :])
        pixels = np.asarray(Image.open(io.BytesIO(file)))
        assert np.array_equal(pixels, (label_map == class_id)[..., None] * np.array([*color, 255], np.uint8))
        stream = file[file.index(b"IDAT") + 4 : file.index(b"IEND") - 8]
        assert len(zlib.decompress(stream)) == label_map.shape[0] * (1 + 4 * label_map.shape[1]), (
            "checksum too"
        )
        assert found == encode_bitmask(label_map == class_id, color)


def blobs() -> LabelMap:
    """500 x 375, about as ragged as predictions are."""
    y, x = np.mgrid[:375, :500]
    waves = sum(np.sin(x / (9 + 7 * n) + n * y / 40) * np.cos(y / (11 + 5 * n) - n) for n in range(4))
    return np.digitize(waves, [-0.8, 0.8]).astype(np.uint8)


def test_they_are_hardly_larger_than_pillows_own() -> None:
    label_map = blobs()
    for class_id, found in encode_bitmasks(label_map, {0: (128, 64, 9), 1: (0, 0, 0), 2: (7, 7, 7)}).items():
        color = decode_color(found)
        pixels = (label_map == class_id)[..., None] * np.array([*color, 255], np.uint8)
        assert len(found) < 1.4 * len(saved(Image.fromarray(pixels)))
        assert np.array_equal(decode_bitmask(found, 375, 500), (label_map == class_id) * 255)


def decode_color(found: str) -> tuple[int, ...]:
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(found[len(PREFIX) :]))))
    return tuple(pixels.reshape(-1, 4).max(axis=0)[:3].tolist())


OPACITIES = st.integers(0, 255) | st.sampled_from([0, 255])


@settings(deadline=None, max_examples=150)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 70)), elements=OPACITIES),
    st.data(),
)
def test_every_filter_and_every_way_of_compressing_is_read(
    alpha: NDArray[np.uint8], data: st.DataObject
) -> None:
    height, width = alpha.shape
    filters = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    rows = b"".join(filtered(rgba(alpha), y, kind) for y, kind in enumerate(filters))
    packer = zlib.compressobj(
        data.draw(st.integers(0, 9)),
        zlib.DEFLATED,
        data.draw(st.integers(9, 15)),
        data.draw(st.integers(1, 9)),
        data.draw(st.integers(0, 4)),
    )
    half = len(rows) // 2
    packed = packer.compress(rows[:half]) + packer.flush(data.draw(st.sampled_from([zlib.Z_SYNC_FLUSH, 3])))
    packed += packer.compress(rows[half:]) + packer.flush()
    file = png((width, height, RGBA8), packed)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file)))[..., 3], alpha), "as Pillow reads it"
    assert np.array_equal(decode_bitmask(url(file), height, width), alpha)


def filtered(pixels: NDArray[np.uint8], y: int, kind: int) -> bytes:
    """One row as PNG's chapter 9 filters it."""
    row = pixels[y].astype(int)
    left = np.pad(row, ((1, 0), (0, 0)))[:-1]
    up = pixels[y - 1].astype(int) if y else row * 0
    corner = np.pad(up, ((1, 0), (0, 0)))[:-1]
    guess = left + up - corner
    to = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)])
    paeth = np.choose(to.argmin(axis=0), [left, up, corner])
    predicted = [row * 0, left, up, (left + up) // 2, paeth][kind]
    return bytes([kind]) + ((row - predicted) & 255).astype(np.uint8).tobytes()


def test_long_runs_far_matches_and_large_pictures_are_read() -> None:
    rng = np.random.default_rng(0)
    row = rng.integers(0, 256, 3000, np.uint8)
    for alpha in (
        np.zeros((700, 900), np.uint8),
        np.tile(row, (9, 1)),
        rng.integers(0, 256, (300, 700), np.uint8),
    ):
        for level in (1, 6, 9):
            found = decode_bitmask(saved(Image.fromarray(rgba(alpha)), compress_level=level), *alpha.shape)
            assert np.array_equal(found, alpha)


def palette() -> Image.Image:
    picture = Image.fromarray(np.array([[0, 1, 2, 3], [3, 0, 0, 0]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    return picture


def test_palettes_with_transparency_grey_with_alpha_and_interlaced_ones_are_read() -> None:
    found = decode_bitmask(saved(palette(), transparency=bytes([0, 127, 128, 255])), 2, 4)
    assert found.tolist() == [[0, 127, 128, 255], [255, 0, 0, 0]]
    grey = Image.merge("LA", (Image.new("L", (4, 2)), Image.fromarray(ALPHA)))
    assert np.array_equal(decode_bitmask(saved(grey), 2, 4), ALPHA)


def test_of_sixteen_bits_the_high_byte_counts() -> None:
    values = np.zeros((2, 4, 4), ">u2")
    values[..., 3] = ALPHA.astype(np.uint16) * 256 + 99
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    file = png((4, 2, bytes((16, 6, 0, 0, 0))), zlib.compress(rows))
    assert np.array_equal(decode_bitmask(url(file), 2, 4), ALPHA)


PACKED = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rgba(ALPHA)))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (None, "wanted a PNG data URL, came 'None'"),
        ("http://x/y.png", "wanted a PNG data URL"),
        ("data:image/jpeg;base64,AAAA", "wanted a PNG data URL"),
        (PREFIX + "AA=A*", "not a readable PNG"),
        (PREFIX, "no PNG signature"),
        (url(b"GIF89a"), "no PNG signature"),
        (url(png((4, 2, RGBA8), PACKED)[:40]), "not a readable PNG"),
        (url(png((4, 2, RGBA8), PACKED).replace(b"IDAT", b"IDAX")), "pixels cannot be unpacked"),
        (url(png((4, 2, RGBA8), PACKED[:-9] + b"\0" * 9)), "pixels cannot be unpacked"),
        (url(png((4, 2, RGBA8), zlib.compress(b"\0" * 33))), "pixels cannot be unpacked"),
        (url(png((4, 2, RGBA8), zlib.compress(b"\0" * 35))), "pixels cannot be unpacked"),
        (url(png((4, 2, RGBA8), zlib.compress(b"\5" * 34))), "pixels cannot be unpacked"),
        (url(png((4, 2, RGBA8), PACKED)[:-20] + b"\1" * 20), "checksum of IDAT"),
        (url(png((5, 2, RGBA8), PACKED)), r"mask is \(5, 2\), the image is \(4, 2\)"),
        (saved(Image.new("RGB", (4, 2))), "no alpha channel .mode RGB"),
        (saved(Image.new("L", (4, 2))), "no alpha channel .mode L"),
        (saved(Image.new("I;16", (4, 2))), "no alpha channel .mode I;16"),
        (saved(palette()), "no alpha channel .mode P"),
        (url(png((4, 2, bytes((8, 3, 0, 0, 0))), b"")), "not a readable PNG|no alpha"),
        (url(png((4, 2, bytes((99, 6, 0, 0, 0))), PACKED)), "not a readable PNG"),
    ],
)
def test_what_is_no_mask_of_this_size_is_refused(broken: object, reason: str) -> None:
    with pytest.raises(LabelFormatError, match=reason):
        decode_bitmask(broken, 2, 4)


def test_a_bomb_is_refused_by_its_size_and_one_that_unpacks_to_more_than_it_says_is_cut_off() -> None:
    bomb = zlib.compress(b"\0" * 50_000_000)
    with pytest.raises(LabelFormatError, match=r"mask is \(100000, 100000\)"):
        decode_bitmask(url(png((100_000, 100_000, RGBA8), bomb)), 2, 4)
    with pytest.raises(LabelFormatError, match="cannot be unpacked"):
        decode_bitmask(url(png((4, 2, RGBA8), bomb)), 2, 4)


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=200),
    st.booleans(),
    st.integers(0, len(PACKED) - 1),
    st.sampled_from([6, 6, 4, 3, 0]),
    st.sampled_from([8, 8, 16]),
    st.booleans(),
)
def test_no_damage_is_read_beyond(
    garbage: bytes, is_all: bool, at: int, kind: int, depth: int, is_interlaced: bool
) -> None:
    stream = garbage if is_all else PACKED[:at] + garbage[:3] + PACKED[at + 3 :]
    layout = bytes((depth, kind, 0, 0, is_interlaced))
    with suppress(LabelFormatError):
        assert decode_bitmask(url(png((4, 2, layout), stream)), 2, 4).shape == (2, 4)
