"""How many images the ranking of the models needs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mad_backend.core.metrics import dataset_miou
from mad_backend.core.stability import StabilityPoint, spearman, stability_curve, stable_from


def matrices(seed: int, n: int, quality: float, spread: float = 0.2) -> np.ndarray:
    """(n, 2, 3): of 100 pixels of each class a share of about `quality` is met."""
    shares = np.random.default_rng(seed).normal(quality, spread, (n, 2)).clip(0, 1)
    found = np.zeros((n, 2, 3), np.int64)
    for k in range(2):
        found[:, k, k] = np.round(100 * shares[:, k])
        found[:, k, 1 - k] = 100 - found[:, k, k]
    return found


def models(n: int = 40, apart: float = 0.03, spread: float = 0.2) -> dict[str, np.ndarray]:
    return {f"m{k}": matrices(k, n, 0.5 + apart * k, spread) for k in range(6)}


def points(*srcc: float) -> list[StabilityPoint]:
    return [StabilityPoint(20 + place, value, value, value) for place, value in enumerate(srcc)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=8))
def test_the_rank_correlation_is_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs, np.float64).T
    found = spearman(first[None], second)[0]
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic)


def test_the_curve_is_a_plain_loop_over_the_first_images_as_drawn() -> None:
    given_ = models()
    curve = stability_curve(given_, classes=[1], orders=2)
    assert [point.images for point in curve] == list(range(20, 41))
    every = [dataset_miou(stack, [1]) for stack in given_.values()]
    for point in curve:
        first = [dataset_miou(stack[: point.images], [1]) for stack in given_.values()]
        assert point.srcc == pytest.approx(spearmanr(first, every).statistic)
    assert curve[-1].srcc == curve[-1].low == curve[-1].high == pytest.approx(1)
    assert min(point.srcc for point in curve) < 1, "the data are made so"


def test_the_band_is_of_seeded_orders_and_closes_with_more_images() -> None:
    once, again = (stability_curve(models(), sizes=[5, 38], seed=1, orders=50) for _ in range(2))
    assert once == again
    assert once != stability_curve(models(), sizes=[5, 38], seed=2, orders=50)
    few, many = once
    assert few.low < few.high
    assert many.high - many.low < few.high - few.low
    assert few.low <= many.low


def test_models_far_apart_are_ranked_the_same_by_any_images() -> None:
    curve = stability_curve(models(n=30, apart=0.08, spread=0.01), orders=20)
    assert [point.images for point in curve] == list(range(15, 31)), "from half of fewer than 40 images"
    assert all(point.low == point.srcc == pytest.approx(1) for point in curve)
    assert stable_from(curve, threshold=1) == 15


def test_where_a_model_is_not_measured_there_is_no_ranking() -> None:
    late = models(n=4)
    late["m0"][:2] = 0
    curve = stability_curve(late, sizes=[2, 3, 4], orders=5)
    assert [math.isnan(point.srcc) for point in curve] == [True, False, False]
    same = {"a": matrices(1, 4, 0.5), "b": matrices(1, 4, 0.5)}
    assert all(math.isnan(point.low) for point in stability_curve(same, orders=5)), "nothing but ties"


def test_stable_is_the_first_size_from_which_the_ranking_holds_for_some_sizes_running() -> None:
    curve = points(0.95, 0.9, 0.95, 0.96, math.nan, 1, 0.95, 1, 0.2)
    assert stable_from(curve, running=1) == 20
    assert stable_from(curve, running=2) == 22
    assert stable_from(curve, running=3) == 25
    assert stable_from(curve, running=4) is None
    assert stable_from(curve, threshold=0.97, running=2) is None
    assert stable_from([]) is None


def test_what_cannot_be_ranked_is_refused() -> None:
    one = matrices(1, 4, 0.5)
    with pytest.raises(ValueError, match="two models or more"):
        stability_curve({"a": one})
    with pytest.raises(ValueError, match="same images"):
        stability_curve({"a": one, "b": one[:3]})
    with pytest.raises(ValueError, match="sizes \\[0, 5\\] of a test set of 4"):
        stability_curve({"a": one, "b": one}, sizes=[0, 5])
    assert stability_curve({"a": one[:0], "b": one[:0]}) == ()
