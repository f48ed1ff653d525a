"""The perceptual hash: near for copies of a photo, far for another photo; and which images are one and the same."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mad_backend.core.labels import RgbImage
from mad_backend.core.looks import NEAR, Contents, Twin, find_twins, name_twins, perceptual_hash

DATA = Path(__file__).parents[3] / "shared" / "data"


def photo(seed: int) -> RgbImage:
    """Soft shapes at every scale, as photos have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    return np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2)))


def distance(one: RgbImage, two: RgbImage) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(two)).bit_count()


def test_copies_at_another_size_quality_or_brightness_differ_in_few_bits() -> None:
    for seed in range(5):
        original = Image.fromarray(photo(seed))
        jpeg = io.BytesIO()
        original.save(jpeg, "JPEG", quality=40)
        copies = [
            Image.open(jpeg),
            original.resize((200, 150), Image.Resampling.BILINEAR),
            original.point(lambda v: v * 0.8),
        ]
        assert all(distance(photo(seed), np.asarray(copy)) <= 6 for copy in copies)


def test_other_photos_differ_in_many_bits() -> None:
    assert min(distance(photo(0), photo(seed)) for seed in range(1, 20)) > 12


def test_any_size_has_a_hash_of_64_bits() -> None:
    for shape in ((1, 1, 3), (2, 900, 3), (7, 3, 3)):
        assert 0 <= perceptual_hash(np.zeros(shape, np.uint8)) < 2**64


def contents(*rows: tuple[str, int, int]) -> Contents:
    """Of (id, digest, hash)."""
    ids, digests, hashes = zip(*rows, strict=True) if rows else ((), (), ())
    return Contents(tuple(ids), np.array(digests, np.uint64), np.array(hashes, np.uint64))


OTHERS = contents(("t/a", 1, 0b0000), ("t/b", 2, 0b1111_0000), ("t/c", 1, 0b1111_1111), ("t/unread", 0, 0))


def test_an_image_is_another_by_its_id_by_its_bytes_or_by_its_look() -> None:
    images = contents(
        ("t/b", 2, 0), ("other", 9, 0b1111_0000 << 20), ("same", 1, 0b1111_0000), ("alike", 8, 0b1101_0000)
    )
    found = find_twins(images, OTHERS, near=2)
    assert found == [Twin("t/b", "t/b", None), Twin("same", "t/a", None), Twin("alike", "t/b", 1)]
    assert [str(twin) for twin in found] == [
        "t/b",
        "same is the same file as t/a",
        "alike looks like (1 of 64 bits differ) t/b",
    ]
    assert find_twins(images, OTHERS, near=None) == found[:2]
    assert find_twins(images, OTHERS, near=0) == found[:2]
    assert name_twins(found, shown=1) == "t/b and 2 more"


def test_of_equally_near_images_the_first_is_named_and_unread_images_are_like_nothing() -> None:
    assert find_twins(contents(("x", 7, 0b0011_0011)), OTHERS, near=4) == [Twin("x", "t/a", 4)]
    assert find_twins(contents(("unread", 0, 0)), OTHERS, near=16) == []
    assert find_twins(contents(("x", 7, 0)), contents(("t/unread", 0, 0)), near=16) == []
    assert find_twins(contents(("x", 7, 0)), contents(), near=16) == []
    assert find_twins(contents(), OTHERS, near=16) == []


def test_twins_in_a_large_pool_are_those_of_a_plain_comparison() -> None:
    """More pairs than are compared at once."""
    rng = np.random.default_rng(0)
    others = rng.integers(0, 2**64, 700, np.uint64)
    hashes = rng.integers(0, 2**64, 4000, np.uint64)
    hashes[::5] = others[rng.integers(0, 700, 800)] ^ rng.integers(0, 2**12, 800, np.uint64)
    pool = Contents(tuple(f"p{n}" for n in range(4000)), np.arange(1, 4001, dtype=np.uint64), hashes)
    tested = Contents(tuple(f"t{n}" for n in range(700)), np.arange(5001, 5701, dtype=np.uint64), others)
    bits = np.bitwise_count(hashes[:, None] ^ others)
    wanted = [
        Twin(f"p{n}", f"t{bits[n].argmin()}", int(bits[n].min())) for n in np.flatnonzero(bits.min(1) <= 8)
    ]
    assert len(wanted) > 600
    assert find_twins(pool, tested, near=8) == wanted


@pytest.mark.skipif(not DATA.is_dir(), reason="the real photos are not here")
def test_copies_of_real_photos_are_near_and_different_photos_are_not() -> None:
    with_copies = []
    for path in sorted((DATA / "voc" / "JPEGImages").iterdir())[:60]:
        with Image.open(path) as image:
            photo, jpeg = image.convert("RGB"), io.BytesIO()
        photo.save(jpeg, "JPEG", quality=40)
        edges = (photo.width // 100, photo.height // 100, photo.width * 99 // 100, photo.height * 99 // 100)
        copies = [Image.open(jpeg), photo.resize((160, 120)), photo.crop(edges)]
        with_copies.append([perceptual_hash(np.asarray(one)) for one in (photo, *copies)])
    near = [(own ^ copy).bit_count() <= NEAR for own, *copies in with_copies for copy in copies]
    assert len(near) - sum(near) <= 1
    assert all((a[0] ^ b[0]).bit_count() > NEAR for a, b in combinations(with_copies, 2))
