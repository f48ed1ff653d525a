"""Eq. (1) and area shares: by hand, against scikit-learn, then as properties."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import jaccard_score

from mad_backend.core.discrepancy import discrepancy
from mad_backend.core.labels import VOID, LabelMap
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.records import Metric

CLASSES = 3
MAPS = hnp.arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, VOID]))


def between(one: LabelMap, two: LabelMap, metric: Metric) -> float:
    return discrepancy(joint_histogram(one, two, CLASSES), metric)


def test_discrepancy_of_a_2x2_pair_by_hand() -> None:
    target = np.array([[0, 0], [1, 1]], np.uint8)
    competitor = np.array([[0, 1], [1, 1]], np.uint8)
    assert between(target, competitor, Metric.MIOU) == pytest.approx(1 - (1 / 2 + 2 / 3) / 2)
    assert between(target, competitor, Metric.PIXEL_AGREEMENT) == pytest.approx(1 / 4)


@pytest.mark.parametrize("metric", Metric)
def test_pixels_that_are_void_in_either_map_do_not_count(metric: Metric) -> None:
    target = np.array([[0, VOID], [1, 1]], np.uint8)
    competitor = np.array([[0, 2], [1, VOID]], np.uint8)
    assert between(target, competitor, metric) == 0.0


@pytest.mark.parametrize("metric", Metric)
def test_two_maps_without_a_common_pixel_do_not_disagree(metric: Metric) -> None:
    void = np.full((2, 2), VOID, np.uint8)
    assert between(void, np.zeros((2, 2), np.uint8), metric) == 0.0


def test_background_counts_as_a_class() -> None:
    target = np.array([[0, 1]], np.uint8)
    assert between(target, np.array([[0, 2]], np.uint8), Metric.MIOU) == pytest.approx(1 - 1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_discrepancy_agrees_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = rng.integers(0, CLASSES, (2, 9, 9), np.uint8)
    expected = 1 - jaccard_score(one.ravel(), two.ravel(), average="macro")
    assert between(one, two, Metric.MIOU) == pytest.approx(expected)


@given(MAPS, MAPS, st.sampled_from(Metric))
def test_discrepancy_is_symmetric_and_in_range(one: LabelMap, two: LabelMap, metric: Metric) -> None:
    value = between(one, two, metric)
    assert 0.0 <= value <= 1.0
    assert value == pytest.approx(between(two, one, metric))


@given(MAPS, MAPS, st.randoms(use_true_random=False), st.sampled_from(Metric))
def test_discrepancy_does_not_depend_on_where_pixels_lie(one, two, random, metric) -> None:  # noqa: ANN001
    order = list(range(one.size))
    random.shuffle(order)
    shuffled = one.ravel()[order][None], two.ravel()[order][None]
    assert between(one, two, metric) == between(*shuffled, metric)


def test_pixel_agreement_grows_with_every_pixel_that_differs() -> None:
    target = np.zeros((1, 6), np.uint8)
    rising = [
        between(target, np.array([[1] * n + [0] * (6 - n)], np.uint8), Metric.PIXEL_AGREEMENT)
        for n in range(7)
    ]
    assert all(a < b for a, b in pairwise(rising))
