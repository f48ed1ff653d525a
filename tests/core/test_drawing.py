"""Overlay and legend."""

import numpy as np
import pytest

from mad_backend.core.drawing import hex_color, legend, overlay
from mad_backend.core.labels import VOID, LabelClass, LabelSet

LABELS = LabelSet(
    "pets",
    (LabelClass("background", (0, 0, 0)), LabelClass("cat", (200, 0, 0)), LabelClass("dog", (0, 200, 0))),
)
STREET = LabelSet("street", (LabelClass("road", (128, 64, 128)), LabelClass("car", (0, 0, 142))), False)
PHOTO = np.full((40, 60, 3), 100, np.uint8)


def test_background_keeps_the_photo() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert np.array_equal(overlay(photo, np.zeros((40, 60), np.uint8), LABELS), photo)


def test_class_colour_is_blended_and_the_border_is_white_outside_black_inside() -> None:
    label_map = np.zeros((40, 60), np.uint8)
    label_map[:, 30:] = 1
    picture = overlay(PHOTO, label_map, LABELS)
    assert picture[5, 50].tolist() == [155, 45, 45]  # 100 * 0.45 + 200 * 0.55, 100 * 0.45
    assert picture[5, 28].tolist() == [100, 100, 100]
    assert picture[5, 29].tolist() == [255, 255, 255]
    assert picture[5, 30].tolist() == [0, 0, 0]


def test_void_is_hatched_and_no_class_colour() -> None:
    picture = overlay(PHOTO, np.full((40, 60), VOID, np.uint8), LABELS)
    shades = {tuple(p) for p in picture.reshape(-1, 3).tolist()}
    assert len(shades) == 2
    assert all(p[0] == p[1] > 100 for p in shades)


def test_class_zero_is_drawn_where_it_is_no_background() -> None:
    picture = overlay(PHOTO, np.zeros((40, 60), np.uint8), STREET)
    assert not np.array_equal(picture, PHOTO)


def test_borders_grow_with_the_image_so_that_they_survive_shrinking() -> None:
    label_map = np.zeros((10, 3000), np.uint8)
    label_map[:, 1500:] = 1
    picture = overlay(np.full((10, 3000, 3), 100, np.uint8), label_map, LABELS)
    assert (picture[5] == 255).all(axis=-1).sum() == 3


def test_the_arguments_are_left_as_they_were() -> None:
    label_map = np.zeros((40, 60), np.uint8)
    label_map[10:20] = 2
    photo = PHOTO.copy()
    overlay(photo, label_map, LABELS)
    assert np.array_equal(photo, PHOTO)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="label map"):
        overlay(PHOTO, np.zeros((40, 61), np.uint8), LABELS)


def test_legend_names_what_is_coloured_by_id_and_void_last() -> None:
    label_map = np.array([[0, 2], [VOID, 1]], np.uint8)
    assert legend(label_map, LABELS) == [("cat", "#c80000"), ("dog", "#00c800"), ("void", "#e0e0c0")]
    assert legend(np.zeros((2, 2), np.uint8), LABELS) == []
    assert legend(np.zeros((2, 2), np.uint8), STREET) == [("road", hex_color((128, 64, 128)))]
