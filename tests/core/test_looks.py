"""The perceptual hash: near for copies of a photo, far for another photo."""

import io

import numpy as np
from PIL import Image, ImageFilter

from mad_backend.core.labels import RgbImage
from mad_backend.core.looks import perceptual_hash


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
