"""Pixels become a network's input as plain numpy would make it."""

import numpy as np
import pytest

from mad_backend.core.normalisation import normalised

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.mark.parametrize("is_bgr", [False, True])
def test_values_are_normalised_in_the_networks_order_and_padded_with_zero(is_bgr: bool) -> None:
    rng = np.random.default_rng(0)
    contents = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((7, 5), (4, 9), (8, 9))]
    batch = normalised(contents, (8, 9), MEAN, STD, is_bgr=is_bgr)
    assert (batch.shape, batch.dtype) == ((3, 8, 9, 3), np.float32)
    for one, content in zip(batch, contents, strict=True):
        height, width = content.shape[:2]
        channels = content[:, :, ::-1] if is_bgr else content
        expected = (channels - np.float32(MEAN)) / np.float32(STD)
        assert np.array_equal(one[:height, :width], expected)
        assert not one[height:].any()
        assert not one[:, width:].any()


def test_pixels_of_any_layout_are_read() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (6, 10, 3), np.uint8)
    rgb.setflags(write=False)
    turned = rgb.transpose(1, 0, 2)
    expected = normalised([np.ascontiguousarray(turned)], (10, 6), MEAN, STD)
    assert np.array_equal(normalised([turned], (10, 6), MEAN, STD), expected)
