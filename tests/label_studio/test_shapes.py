"""Polygons, rectangles and ellipses as masks: by hand, against arithmetic on areas, and as a partition."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.shapes import ellipse, polygon, rectangle


def points(*pairs: tuple[float, float]) -> dict[str, Any]:
    return {"points": [list(pair) for pair in pairs], "closed": True}


def test_a_square_in_percent_covers_the_pixels_whose_centres_are_in_it() -> None:
    mask = polygon(points((20, 25), (60, 25), (60, 75), (20, 75)), 4, 10)
    assert mask.astype(int).tolist() == [
        [0] * 10,
        [0, 0, 1, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0, 0, 0],
        [0] * 10,
    ]


def test_a_triangle_has_half_the_area_of_its_box() -> None:
    assert polygon(points((0, 0), (100, 0), (0, 100)), 200, 300).mean() == pytest.approx(0.5, abs=0.005)


def test_where_a_polygon_crosses_itself_twice_there_is_a_hole() -> None:
    star = points((50, 0), (79, 90), (2, 35), (98, 35), (21, 90))
    mask = polygon(star, 100, 100)
    assert not mask[50, 50], "the middle is crossed an even number of times"
    assert mask[20, 50]


CORNERS = st.tuples(st.floats(-20, 120), st.floats(-20, 120))


@given(CORNERS, CORNERS, CORNERS, CORNERS)
def test_the_two_halves_of_a_cut_polygon_share_no_pixel_and_make_up_the_whole(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]
) -> None:
    whole = polygon(points(a, b, c, d), 37, 53)
    halves = polygon(points(a, b, c), 37, 53) ^ polygon(points(a, c, d), 37, 53)
    # Edges are computed from either end, so a centre that lies on one to the last digit may fall to either side.
    assert (whole != halves).sum() <= 1


@given(st.lists(CORNERS, min_size=3, max_size=12))
def test_every_polygon_is_what_crossing_numbers_say_pixel_by_pixel(
    corners: list[tuple[float, float]],
) -> None:
    height, width = 11, 13
    mask = polygon(points(*corners), height, width)
    scaled = [(x * width / 100, y * height / 100) for x, y in corners]
    differing = sum(
        _crossings(scaled, column + 0.5, row + 0.5) % 2 != mask[row, column]
        for row in range(height)
        for column in range(width)
    )
    assert differing <= 1  # a centre on an edge


def _crossings(corners: list[tuple[float, float]], x: float, y: float) -> int:
    """How often a ray from (x, y) to the left crosses the polygon."""
    return sum(
        x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True)
        if (y0 <= y) != (y1 <= y)
    )


def test_a_polygon_outside_the_image_is_empty_and_one_around_it_is_full() -> None:
    assert not polygon(points((120, 120), (150, 120), (150, 150)), 5, 5).any()
    assert polygon(points((-9, -9), (200, -9), (200, 200), (-9, 200)), 5, 5).all()


def test_a_rectangle_is_the_polygon_of_its_corners() -> None:
    value = {"x": 20, "y": 25, "width": 40, "height": 50, "rotation": 0}
    assert np.array_equal(
        rectangle(value, 4, 10), polygon(points((20, 25), (60, 25), (60, 75), (20, 75)), 4, 10)
    )


def test_a_rectangle_turned_by_90_degrees_lies_left_of_its_corner() -> None:
    mask = rectangle({"x": 50, "y": 0, "width": 50, "height": 20, "rotation": 90}, 10, 10)
    expected = np.zeros((10, 10), bool)
    expected[0:5, 3:5] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"points": [[1, 2], [3, 4]]},
        {"points": [[1, 2], [3, 4], [5]]},
        {"points": [[1, 2], [3, 4], [5, "6"]]},
        {"points": [[1, 2], [3, 4], [5, float("nan")]]},
        {"points": [[1, 2], [3, 4], [5, 10**400]]},
        {"points": "abc"},
    ],
)
def test_points_that_are_none_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(LabelFormatError, match="wanted"):
        polygon(broken, 4, 4)


@pytest.mark.parametrize(
    "broken", [{}, {"x": 1, "y": 2, "width": 3}, {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": "a"}]
)
def test_a_rectangle_without_its_numbers_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(LabelFormatError, match="wanted"):
        rectangle(broken, 4, 4)


def test_an_ellipse_holds_the_pixels_whose_centres_are_in_it() -> None:
    value = {"x": 50, "y": 50, "radiusX": 40, "radiusY": 25, "rotation": 0}
    mask = ellipse(value, 200, 300)
    assert mask.sum() == pytest.approx(math.pi * 120 * 50, rel=0.002)
    assert mask[100, [29, 30, 269, 270]].tolist() == [False, True, True, False]
    assert mask[[49, 50, 149, 150], 150].tolist() == [False, True, True, False]


def test_an_ellipse_turns_clockwise_about_its_centre_in_pixels_not_in_percent() -> None:
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 90}
    upright = {"x": 50, "y": 50, "radiusX": 10 * 20 / 40, "radiusY": 20 * 40 / 20, "rotation": 0}
    assert np.array_equal(ellipse(value, 20, 40), ellipse(upright, 20, 40))
    slanted = ellipse({**value, "radiusY": 2, "rotation": 45}, 40, 40)
    assert slanted[15, 15]
    assert not slanted[15, 25]


def test_an_ellipse_without_extent_is_empty() -> None:
    assert not ellipse({"x": 50, "y": 50, "radiusX": 0, "radiusY": 9}, 9, 9).any()


@pytest.mark.parametrize(
    "broken", [{}, {"x": 1, "y": 2, "radiusX": 3}, {"x": 1, "y": 2, "radiusX": 3, "radiusY": "4"}]
)
def test_an_ellipse_without_its_numbers_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(LabelFormatError, match="wanted"):
        ellipse(broken, 4, 4)
