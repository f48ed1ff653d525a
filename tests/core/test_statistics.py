"""Bootstrap intervals of dataset mIoU."""

import math

import numpy as np
import pytest

from mad_backend.core.metrics import confusion_matrix, dataset_miou
from mad_backend.core.statistics import bootstrap_difference, bootstrap_miou, images_needed


def matrices(seed: int, n: int = 40, noise: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        truth = rng.integers(0, 3, (8, 8), np.uint8)
        wrong = rng.random(truth.shape) < noise * rng.random() * 2
        found.append(confusion_matrix(truth, np.where(wrong, 0, truth).astype(np.uint8), 3))
    return np.stack(found)


def test_the_value_is_the_dataset_miou_and_lies_inside_its_interval() -> None:
    found = bootstrap_miou(matrices(1), seed=0, draws=200)
    assert found.value == dataset_miou(matrices(1))
    assert 0 <= found.low < found.value < found.high <= 1


def test_the_same_seed_gives_the_same_interval() -> None:
    assert bootstrap_miou(matrices(1), seed=3, draws=50) == bootstrap_miou(matrices(1), seed=3, draws=50)


def test_identical_images_leave_no_uncertainty() -> None:
    same = np.repeat(matrices(1, n=1), 5, axis=0)
    found = bootstrap_miou(same, seed=0, draws=20)
    assert found.low == found.value == found.high


def test_the_interval_narrows_with_more_images() -> None:
    few, many = (bootstrap_miou(matrices(2, n=n), seed=0, draws=200) for n in (10, 160))
    assert many.high - many.low < few.high - few.low


def test_the_interval_agrees_with_a_plain_loop() -> None:
    data = matrices(4, n=6)
    rng = np.random.default_rng(9)
    values = [dataset_miou(data[rng.integers(6, size=6)]) for _ in range(60)]
    found = bootstrap_miou(data, seed=9, draws=60)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))))


def test_images_are_resampled_within_their_own_sample_as_a_plain_loop_does() -> None:
    before, after = matrices(4, n=9, noise=0.5), matrices(4, n=9, noise=0.4)
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    rng = np.random.default_rng(9)
    places = [np.arange(4)[rng.integers(4, size=(200, 4))], 4 + rng.integers(5, size=(200, 5))]
    values = []
    for chosen in np.concatenate(places, axis=1):
        pooled = [np.sum([m[i] for i in chosen], axis=0)[None] for m in (after, before)]
        values.append(dataset_miou(pooled[0]) - dataset_miou(pooled[1]))
    found = bootstrap_difference(after, before, seed=9, draws=200, strata=strata, confidence=0.9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.05, 0.95))))
    assert found.value == dataset_miou(after) - dataset_miou(before)


def test_differences_between_samples_are_no_uncertainty_of_a_stratified_interval() -> None:
    """Of twice as many easy images as hard ones there always are twice as many."""
    easy, hard = matrices(1, n=1, noise=0.1), matrices(1, n=1, noise=0.8)
    before = np.concatenate([np.repeat(easy, 8, axis=0), np.repeat(hard, 4, axis=0)])
    after = np.repeat(easy, 12, axis=0)
    strata = np.repeat([0, 1], [8, 4])
    stratified = bootstrap_difference(after, before, seed=0, draws=100, strata=strata)
    one_bag = bootstrap_difference(after, before, seed=0, draws=100)
    assert stratified.low == stratified.high == pytest.approx(stratified.value)
    assert one_bag.low < stratified.low < one_bag.high


@pytest.mark.parametrize(("confidence", "needed"), [(0.9, 5), (0.95, 6), (0.99, 8)])
def test_fewer_images_than_the_sign_test_needs_are_too_few_for_an_interval(
    confidence: float, needed: int
) -> None:
    tail = (1 - confidence) / 2
    assert images_needed(confidence) == needed
    assert 0.5**needed <= tail < 0.5 ** (needed - 1)


def test_a_model_does_not_differ_from_itself() -> None:
    found = bootstrap_difference(matrices(1), matrices(1), seed=0, draws=20)
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_a_difference_changes_sign_with_the_order() -> None:
    better, worse = matrices(1, noise=0.1), matrices(1, noise=0.6)
    forth = bootstrap_difference(better, worse, seed=0, draws=100)
    back = bootstrap_difference(worse, better, seed=0, draws=100)
    assert forth.low > 0
    assert (back.low, back.value, back.high) == pytest.approx((-forth.high, -forth.value, -forth.low))


def test_unpaired_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        bootstrap_difference(matrices(1, n=3), matrices(1, n=4), seed=0)


def test_no_images_give_no_value() -> None:
    found = bootstrap_miou(np.zeros((0, 3, 4), np.int64), seed=0)
    assert math.isnan(found.value)


def test_images_of_nothing_but_void_give_no_value_and_no_warning() -> None:
    found = bootstrap_miou(np.zeros((2, 3, 4), np.int64), seed=0, draws=10)
    assert math.isnan(found.value)
    assert math.isnan(found.low)
