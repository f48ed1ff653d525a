"""Reading images of every odd kind, as files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Fit, Grid
from mad_backend.core.records import PoolImage
from mad_backend.errors import ImageError
from mad_backend.pool.images import (
    MAX_PIXELS,
    decode_frame,
    decode_rgb,
    image_size,
    read_label_map,
    read_rgb,
)

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


TURNS = {
    1: PHOTO,
    2: PHOTO[:, ::-1],
    3: PHOTO[::-1, ::-1],
    4: PHOTO[::-1],
    5: PHOTO.transpose(1, 0, 2),
    6: np.rot90(PHOTO, -1),
    7: np.rot90(PHOTO, 2).transpose(1, 0, 2),
    8: np.rot90(PHOTO),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_is_turned_upright_by_its_exif_orientation(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(PHOTO), kind, exif=exif, **{"lossless": True} if kind == "WEBP" else {})
    turned = TURNS[orientation]
    assert (decode_rgb(data, "a") == turned).all()
    assert image_size(data, "a") == turned.shape[:2]
    assert decode_frame(PoolImage("s/a", "a"), data, Grid()).size == turned.shape[:2]


def test_a_palette_image_gets_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([1, 0])
    assert read_rgb(save(tmp_path / "a.png", image)).tolist() == [[[40, 50, 60], [10, 20, 30]]]


def test_a_palette_with_transparency_gets_its_colours_without_a_warning(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([1, 0])
    path = save(tmp_path / "a.png", image, transparency=b"\x00\x80")
    assert read_rgb(path).tolist() == [[[40, 50, 60], [10, 20, 30]]]


def test_16_bit_grey_is_scaled_to_8_bit(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(np.array([[0, 257, 65535]], np.uint16)))
    assert read_rgb(path).tolist() == [[[0] * 3, [1] * 3, [255] * 3]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind)
    # Photoshop's way, which Pillow writes too: the marker "Adobe", and ink values inverted in the file.
    assert kind == "TIFF" or b"Adobe" in data
    red, green, blue = decode_rgb(data, "a")[4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_ycck_the_cmyk_of_photoshop_becomes_rgb() -> None:
    # An Adobe marker with transform 2: brightness and colour are told apart, as in other JPEGs. The pixels are inverted
    # grey without black ink, so that each channel of brightness and colour is known.
    data = bytearray(encoded(Image.new("CMYK", (8, 8), (55, 127, 127, 0)), "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2
    pixel = decode_rgb(bytes(data), "a")[4, 4]
    assert np.ptp(pixel.astype(int)) < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_of_16_bit_colours_the_high_byte_is_taken(tmp_path: Path, kind: str) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / f"a.{kind.lower()}"
    pixels = np.array([[[0, 0x1234, 0xFFFF], [0x8000, 0x00FF, 0x0100]]], np.uint16)
    assert cv2.imwrite(str(path), pixels)
    assert read_rgb(path)[:, :, ::-1].tolist() == (pixels >> 8).tolist()


def test_16_and_32_bit_grey_of_a_tiff_is_scaled_and_cut() -> None:
    for dtype, top in ((np.uint16, 65535), (np.int32, 70000)):
        data = encoded(Image.fromarray(np.array([[0, 257, top]], dtype)), "TIFF")
        assert decode_rgb(data, "a").tolist() == [[[0] * 3, [1] * 3, [255] * 3]]


def test_brightness_and_colour_of_a_tiff_become_rgb() -> None:
    data = encoded(Image.new("RGB", (2, 2), (200, 30, 40)).convert("YCbCr"), "TIFF")
    assert np.abs(decode_rgb(data, "a")[0, 0].astype(int) - (200, 30, 40)).max() <= 2


@pytest.mark.parametrize(
    "image",
    [Image.fromarray(np.full((2, 2), 0.5, np.float32)), Image.new("LAB", (2, 2), (128, 128, 128))],
    ids=["float", "Lab"],
)
def test_pixels_that_are_rgb_only_by_a_guess_are_refused(image: Image.Image) -> None:
    with pytest.raises(ImageError, match=rf"image a\.tif has pixels of kind {image.mode}.*; save it as RGB"):
        decode_rgb(encoded(image, "TIFF"), "a.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "RGB"])
def test_every_common_mode_becomes_three_bytes_per_pixel(tmp_path: Path, mode: str) -> None:
    found = read_rgb(save(tmp_path / "a.png", Image.fromarray(PHOTO).convert(mode)))
    assert (found.shape, found.dtype) == ((6, 4, 3), np.uint8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_an_animation_and_of_many_pages_the_first_is_read(kind: str) -> None:
    first, second = (Image.new("RGB", (16, 16), c) for c in ("red", "blue"))
    data = encoded(first, kind, save_all=True, append_images=[second])
    assert decode_rgb(data, "a")[8, 8].astype(int) == pytest.approx([255, 0, 0], abs=4)


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    assert read_rgb(save(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def noise(kind: str) -> bytes:
    rng = np.random.default_rng(1)
    return encoded(Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)), kind)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow tells of damage it can live with
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_a_file_cut_off_anywhere_is_an_image_error_or_still_an_image(tmp_path: Path, kind: str) -> None:
    whole = noise(kind)
    path = tmp_path / f"a.{kind}"
    refused = 0
    for end in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:end])
        try:
            assert read_rgb(path).shape == (9, 9, 3)
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017 - the message matters only where there is an error
            refused += 1
    assert refused > 50


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow tells of damage it can live with
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_a_file_with_a_wrong_byte_is_an_image_error_or_still_an_image(tmp_path: Path, kind: str) -> None:
    whole = noise(kind)
    path = tmp_path / f"a.{kind}"
    for place in range(min(len(whole), 200)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert read_rgb(path).dtype == np.uint8
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017 - as above


def test_a_small_file_that_claims_a_huge_image_is_refused_before_decoding(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError, match=f"100000 x 100000 pixels; the limit is {MAX_PIXELS:,}"):
        read_rgb(path)


def test_a_header_that_lies_is_found_out(tmp_path: Path) -> None:
    # A GIF of 1 x 1 whose only frame is 30,000 x 30,000.
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 30_000, 30_000, 0) + b"\x02\x02\x4c\x01\x00\x3b"
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame
    with pytest.raises(ImageError, match="30000 x 30000 pixels; the limit is"):
        decode_rgb(data, "a.gif")


def test_a_file_of_a_kind_that_would_start_a_program_is_not_tried() -> None:
    with pytest.raises(ImageError, match=r"a\.jpg is not in a format that is read"):
        decode_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a.jpg")


def test_what_is_wrong_with_an_image_of_the_web_is_told_without_its_signature() -> None:
    with pytest.raises(ImageError, match=r"image https://host/a\.png is not in a format"):
        decode_rgb(b"<html>", "https://host/a.png?signature=HUSH")


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_frame_is_the_image_on_the_grid(kind: str, orientation: int, fit: Fit) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(2).integers(0, 256, (61, 90, 3), np.uint8)
    data = encoded(Image.fromarray(pixels), kind, exif=exif)
    rgb = decode_rgb(data, "a")
    for size in (16, 50, 90, 200):
        grid = Grid(size, fit)
        frame = decode_frame(PoolImage("s/a", "a"), data, grid)
        assert (frame.image_id, frame.size, frame.address) == ("s/a", rgb.shape[:2], "a")
        wanted = grid.image(rgb)
        assert frame.rgb.shape == wanted.shape
        if (
            kind == "PNG" or size > 16
        ):  # the rest is 90 / 16: more than twice too large, and shrunk by the decoder
            assert (frame.rgb == wanted).all()


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize("orientation", [1, 8])
@pytest.mark.parametrize(("height", "width"), [(1200, 1600), (1203, 1597)])
def test_a_large_jpeg_on_the_grid_is_within_four_grey_levels_of_the_exact_way(
    height: int, width: int, orientation: int, fit: Fit
) -> None:
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((width, height))
    pixels = np.asarray(coarse) + rng.normal(0, 12, (height, width, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    data = encoded(photo, "JPEG", quality=92, exif=exif)
    grid = Grid(128, fit)
    exact = grid.image(decode_rgb(data, "a")).astype(int)
    difference = np.abs(decode_frame(PoolImage("s/a", "a"), data, grid).rgb - exact)
    assert difference.max() <= 4
    assert difference.mean() < 0.6


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    with pytest.raises(ImageError, match=r"notes\.jpg is not in a format"):
        read_rgb(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        read_rgb(tmp_path / "gone.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read: it is not a file"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_label_map_keeps_its_ids(tmp_path: Path, mode: str) -> None:
    ids = np.array([[0, 1], [20, 255]], np.uint8)
    image = Image.fromarray(ids)
    if mode == "P":
        image.putpalette([7] * 768)
    assert (read_label_map(save(tmp_path / "m.png", image)) == ids).all()


def test_a_colour_picture_is_no_label_map(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"m\.png has mode RGB; wanted an index PNG"):
        read_label_map(save(tmp_path / "m.png", Image.fromarray(PHOTO)))
