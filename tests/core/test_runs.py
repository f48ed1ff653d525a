"""Histograms of pixels and of runs equal plain numpy, on random and on real maps; damaged runs are noticed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.runs import RunMap
from mad_backend.errors import CorruptFileError
from tests.core.label_maps import SMALL, counted, pairs, real_maps

DATA = Path(__file__).parents[3] / "shared" / "data"


def merged(rows: LabelMap, columns: LabelMap, classes: int) -> np.ndarray:
    joint = np.zeros((classes + 1, classes + 1), np.int64)
    RunMap.of(rows).count_with(RunMap.of(columns), joint)
    return joint


@given(pairs(), st.sampled_from([2, 3, 21, 255]))
@settings(max_examples=150, deadline=None)
def test_histograms_of_pixels_and_of_runs_equal_plain_numpy(
    pair: tuple[LabelMap, LabelMap], classes: int
) -> None:
    expected = counted(*pair, classes)
    assert np.array_equal(joint_histogram(*pair, classes), expected)
    assert np.array_equal(merged(*pair, classes), expected)


@given(SMALL)
@settings(deadline=None)
def test_runs_give_the_map_back(label_map: LabelMap) -> None:
    assert np.array_equal(RunMap.of(label_map).label_map(), label_map)


@pytest.mark.parametrize("name", ["voc/SegmentationClass", "camvid/masks"])
def test_real_maps_are_counted_and_given_back_exactly(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"needs the label maps in {DATA / name}")
    maps = real_maps(DATA / name, 8)
    for one, two in pairwise(maps):
        expected = counted(one, two, 21)
        assert np.array_equal(joint_histogram(one, two, 21), expected)
        assert np.array_equal(merged(one, two, 21), expected)
        assert np.array_equal(RunMap.of(one).label_map(), one)


def test_a_run_as_long_as_a_large_map_survives() -> None:
    label_map = np.zeros((3000, 4000), np.uint8)
    label_map[-1, -1] = 7
    runs = RunMap.of(label_map)
    assert runs.count == 2
    assert len(runs.payload) == 2 + 4 + 1
    assert np.array_equal(runs.label_map(), label_map)


def test_maps_that_are_not_contiguous_are_read_in_their_own_order() -> None:
    whole = np.random.default_rng(0).integers(0, 3, (40, 50), np.uint8)
    part = whole[::2, 3:31].T
    assert np.array_equal(RunMap.of(part).label_map(), part)
    assert np.array_equal(joint_histogram(part, part[::-1], 3), counted(part, part[::-1], 3))


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\) cannot be compared"):
        merged(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 3)


@given(pairs(), st.data())
@settings(max_examples=80, deadline=None)
def test_damaged_runs_are_an_error_or_have_the_right_number_of_pixels(
    pair: tuple[LabelMap, LabelMap], data: st.DataObject
) -> None:
    good, other = RunMap.of(pair[0]), RunMap.of(pair[1])
    damaged = bytearray(good.payload)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for payload in (bytes(damaged), bytes(damaged[:cut])):
        bad = RunMap(good.height, good.width, good.count, payload)
        try:
            label_map = bad.label_map()
        except CorruptFileError:
            label_map = None
        joint = np.zeros((22, 22), np.int64)
        try:
            bad.count_with(other, joint)
        except CorruptFileError:
            assert label_map is None
        else:
            assert label_map is not None
            assert np.array_equal(joint, counted(label_map, pair[1], 21))
