"""The evaluation grid: sizes, and what survives the way there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.core.grid import Fit, Grid
from mad_backend.core.labels import VOID

sides = st.integers(1, 90)


def test_letterbox_scales_the_longer_side_down_and_keeps_the_aspect() -> None:
    assert Grid(100, Fit.LETTERBOX).shape_for(400, 200) == (100, 50)


def test_letterbox_never_scales_up() -> None:
    assert Grid(100, Fit.LETTERBOX).shape_for(30, 20) == (30, 20)


def test_letterbox_leaves_at_least_one_pixel_of_a_very_thin_image() -> None:
    assert Grid(16, Fit.LETTERBOX).shape_for(1000, 1) == (16, 1)


@pytest.mark.parametrize("fit", [Fit.SQUASH, Fit.CROP])
def test_squash_and_crop_always_give_the_full_square(fit: Fit) -> None:
    assert Grid(64, fit).shape_for(30, 90) == (64, 64)


def test_crop_takes_the_central_square() -> None:
    label_map = np.repeat(np.array([[0, 1, 1, 2]], np.uint8), 2, axis=0)
    assert Grid(2, Fit.CROP).label_map(label_map).tolist() == [[1, 1], [1, 1]]


def test_what_crop_cut_off_comes_back_as_void() -> None:
    restored = Grid(2, Fit.CROP).restore(np.ones((2, 2), np.uint8), 2, 4)
    assert restored.tolist() == [[VOID, 1, 1, VOID]] * 2


def test_label_maps_are_never_blended() -> None:
    label_map = np.array([[0, 20], [20, 0]], np.uint8).repeat(31, 0).repeat(31, 1)
    assert set(np.unique(Grid(16).label_map(label_map))) == {0, 20}


@given(sides, sides, st.sampled_from(Fit), st.integers(1, 40))
def test_images_and_label_maps_land_on_the_announced_shape_and_come_back(
    height: int, width: int, fit: Fit, size: int
) -> None:
    grid = Grid(size, fit)
    rng = np.random.default_rng(height * 100 + width)
    label_map = rng.integers(0, 5, (height, width), np.uint8)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    assert grid.label_map(label_map).shape == grid.shape_for(height, width)
    assert grid.image(image).shape == (*grid.shape_for(height, width), 3)
    restored = grid.restore(grid.label_map(label_map), height, width)
    assert restored.shape == (height, width)
    assert restored.dtype == np.uint8
    assert set(np.unique(restored)) <= set(np.unique(label_map)) | {VOID}


@given(sides, sides)
def test_an_image_that_fits_is_left_as_it_is(height: int, width: int) -> None:
    label_map = np.random.default_rng(0).integers(0, 5, (height, width), np.uint8)
    grid = Grid(90)
    assert (grid.restore(grid.label_map(label_map), height, width) == label_map).all()
