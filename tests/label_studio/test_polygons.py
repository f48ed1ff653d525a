"""Label maps as polygons: exact without tolerance, within it otherwise, whatever rule fills them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from mad_backend.core.labels import LabelMap, Mask
from mad_backend.label_studio.polygons import outlines, percent
from mad_backend.label_studio.shapes import polygon

MAPS = arrays(
    np.uint8, st.tuples(st.integers(1, 15), st.integers(1, 15)), elements=st.sampled_from([0, 1, 1, 1, 2])
)


def by_winding(points: list[list[float]], height: int, width: int) -> Mask:
    """Non-zero rule, as a browser's canvas fills; all edges are between whole pixels, upright or level."""
    corners = np.round(np.array(points) * (width / 100, height / 100)).astype(int)
    turns = np.zeros((height, width + 1), int)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        assert x0 == x1 or y0 == y1
        turns[min(y0, y1) : max(y0, y1), x0] += 1 if y1 > y0 else -1
    filled: Mask = np.cumsum(turns, axis=1)[:, :width] != 0
    return filled


def dense(ring: NDArray[np.int32]) -> NDArray[np.float64]:
    """(n, 2) points along a ring, eight an edge."""
    steps = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    found: NDArray[np.float64] = (ring * (1 - steps) + np.roll(ring, -1, axis=0) * steps).reshape(-1, 2)
    return found


def farthest(points: NDArray[np.float64], ring: NDArray[np.int32]) -> float:
    """How far the points are from the edges of a ring at most."""
    starts, sides = ring.astype(float), np.roll(ring, -1, axis=0) - ring.astype(float)
    lengths = np.maximum((sides**2).sum(axis=1), 1e-9)
    along = np.clip(((points[:, None] - starts) * sides).sum(axis=2) / lengths, 0, 1)
    feet = starts + along[..., None] * sides
    return float(np.sqrt(((feet - points[:, None]) ** 2).sum(axis=2)).min(axis=1).max())


def test_a_square_with_a_hole_is_one_ring_cut_open_above_the_hole() -> None:
    square = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    ((class_id, ring),) = outlines(square, [1], 0)
    assert class_id == 1
    outer, hole = [[3, 0], [3, 3], [0, 3]], [[1, 1], [1, 2], [2, 2], [2, 1], [1, 1]]
    assert ring.tolist() == [[0, 0], [1, 0], *hole, [1, 0], *outer]
    assert percent(ring, 3, 3)[:3] == [[0, 0], [33.3, 0], [33.3, 33.3]]


@settings(deadline=None, max_examples=300)
@given(MAPS)
def test_without_tolerance_every_map_survives_by_either_rule(label_map: LabelMap) -> None:
    height, width = label_map.shape
    drawn, times = np.zeros_like(label_map), np.zeros(label_map.shape, int)
    rings = list(outlines(label_map, [1, 2], 0))
    for class_id, ring in rings:
        points = percent(ring, height, width)
        mask = polygon({"points": points}, height, width)
        assert np.array_equal(mask, by_winding(points, height, width))
        drawn[mask] = class_id
        times += mask
    assert np.array_equal(drawn, label_map)
    assert times.max() <= 1
    assert len(rings) == sum(ndimage.label(label_map == class_id)[1] for class_id in (1, 2))


@settings(deadline=None, max_examples=200)
@given(MAPS, st.sampled_from([0.5, 1.0, 1.5, 4.0]))
def test_no_outline_is_farther_from_the_true_one_than_allowed(label_map: LabelMap, tolerance: float) -> None:
    pairs = zip(outlines(label_map, [0, 1, 2], 0), outlines(label_map, [0, 1, 2], tolerance), strict=True)
    for (true_id, true), (class_id, ring) in pairs:
        assert class_id == true_id
        assert 3 <= len(ring) <= len(true)
        assert farthest(dense(ring), true) <= tolerance + 1e-9
        assert farthest(dense(true), ring) <= tolerance + 1e-9
        assert np.ptp(ring, axis=0).min() > 0, "no line without area"


def test_what_is_smaller_than_the_tolerance_keeps_half_its_area_and_long_edges_lose_their_steps() -> None:
    label_map = np.zeros((60, 60), np.uint8)
    label_map[2:4, 5:7], label_map[10, 3:40], label_map[20:50, 8] = 1, 1, 1
    for _, ring in outlines(label_map, [1], 5):
        x, y = ring.T.astype(float)
        area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        assert area >= min(4, 30) / 2
        assert len(ring) <= 4
    below = np.tri(50, dtype=np.uint8)
    ((_, stairs),), ((_, slope),) = outlines(below, [1], 0), outlines(below, [1], 1)
    assert len(stairs) == 102
    assert len(slope) <= 5


def test_a_grid_of_holes_and_a_comb_are_one_ring_each() -> None:
    sieve = np.ones((81, 121), np.uint8)
    sieve[1::2, 1::2] = 0
    ((_, ring),) = outlines(sieve, [1], 0)
    assert np.array_equal(polygon({"points": percent(ring, 81, 121)}, 81, 121), sieve == 1)
    comb = np.ones((40, 4001), np.uint8)
    comb[1:, 1::2] = 0
    ((_, teeth),) = outlines(comb, [1], 2)
    assert len(teeth) >= 4001


@pytest.mark.parametrize("side", [7, 500, 4097, 12_345])
def test_percent_has_digits_enough_for_a_hundredth_of_a_pixel(side: int) -> None:
    ring = np.array([[x, side - x] for x in range(side + 1)], np.int32)
    assert abs(np.array(percent(ring, side, side)) * side / 100 - ring).max() <= 0.005 + 1e-9
    assert np.array(percent(ring, side, side)).max() == 100
