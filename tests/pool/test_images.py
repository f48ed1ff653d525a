"""Reading images of every odd kind, as files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.errors import ImageError
from mad_backend.pool.images import MAX_PIXELS, image_size, read_label_map, read_rgb

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, PHOTO), (2, PHOTO[:, ::-1]), (3, PHOTO[::-1, ::-1]), (6, np.rot90(PHOTO, -1)), (8, np.rot90(PHOTO))],
)
def test_an_image_is_turned_upright_by_its_exif_orientation(
    tmp_path: Path, orientation: int, turned: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(PHOTO), exif=exif)
    assert (read_rgb(path) == turned).all()
    assert image_size(path) == turned.shape[:2]


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


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    red, green, blue = read_rgb(path)[4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "RGB"])
def test_every_common_mode_becomes_three_bytes_per_pixel(tmp_path: Path, mode: str) -> None:
    found = read_rgb(save(tmp_path / "a.png", Image.fromarray(PHOTO).convert(mode)))
    assert (found.shape, found.dtype) == ((6, 4, 3), np.uint8)


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (3, 3), c) for c in ("red", "blue"))
    path = save(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    assert read_rgb(path)[1, 1].tolist() == [255, 0, 0]


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    assert read_rgb(save(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def encoded(suffix: str) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow tells of damage it can live with
@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_a_file_cut_off_anywhere_is_an_image_error_or_still_an_image(tmp_path: Path, kind: str) -> None:
    whole = encoded(kind)
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
    whole = encoded(kind)
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


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("no image")
    with pytest.raises(ImageError, match=r"notes\.jpg is not in a format"):
        read_rgb(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        read_rgb(tmp_path / "gone.png")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
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
