"""Intervals of what is measured on a test set."""

import math

import numpy as np
import pytest
import scipy.stats

from mad_backend.core.metrics import (
    confusion_matrix,
    dataset_miou,
    image_miou,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
)
from mad_backend.core.statistics import (
    estimate_all,
    estimate_difference,
    estimate_miou,
    images_needed,
    student_quantile,
)


def matrices(seed: int, n: int = 40, noise: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        truth = rng.integers(0, 3, (8, 8), np.uint8)
        wrong = rng.random(truth.shape) < noise * rng.random() * 2
        found.append(confusion_matrix(truth, np.where(wrong, 0, truth).astype(np.uint8), 3))
    return np.stack(found)


def test_the_value_is_the_dataset_miou_and_lies_inside_its_interval() -> None:
    found = estimate_miou(matrices(1))
    assert found.value == dataset_miou(matrices(1))
    assert 0 <= found.low < found.value < found.high <= 1


def test_identical_images_leave_no_uncertainty() -> None:
    same = np.repeat(matrices(1, n=1), 5, axis=0)
    found = estimate_miou(same)
    assert found.low == pytest.approx(found.value) == found.high


def test_the_interval_narrows_with_more_images() -> None:
    few, many = (estimate_miou(matrices(2, n=n)) for n in (10, 160))
    assert many.high - many.low < few.high - few.low


def student(confidence: float, freedom: float) -> float:
    return float(scipy.stats.t.ppf((1 + confidence) / 2, freedom))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("freedom", [1, 1.3, 2, 5.5, 29, 1448, 10_000])
def test_the_quantile_of_students_t_is_scipys(confidence: float, freedom: float) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(student(confidence, freedom), rel=2e-4)


def test_the_interval_is_a_plain_jackknife_of_the_log_odds() -> None:
    data = matrices(4, n=6)
    without = np.array([dataset_miou(np.delete(data, i, axis=0)) for i in range(6)])
    squares = (without - without.mean()) ** 2
    freedom = 2 * squares.sum() ** 2 / ((squares - squares.mean()) ** 2).sum()
    value = dataset_miou(data)
    error = math.sqrt(5 / 6 * squares.sum()) / (value * (1 - value))
    reach = student(0.95, min(freedom, 5)) * error
    odds = math.log(value / (1 - value))
    found = estimate_miou(data)
    expected = [1 / (1 + math.exp(-at)) for at in (odds - reach, odds + reach)]
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-5)


def test_a_class_that_one_image_shows_leaves_the_mean_with_it() -> None:
    before, after = matrices(4, n=5), matrices(5, n=5)
    for stack in (before, after):
        stack[1:, 2], stack[1:, :, 2] = 0, 0
    changes = [
        dataset_miou(np.delete(after, i, axis=0)) - dataset_miou(np.delete(before, i, axis=0))
        for i in range(5)
    ]
    reach = student(0.9, 4) * math.sqrt(4 / 5 * np.sum((changes - np.mean(changes)) ** 2))
    found = estimate_difference(after, before, confidence=0.9)
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach), rel=1e-5)


def test_images_of_a_sample_are_left_out_with_the_others_of_it_in_their_place() -> None:
    before, after = matrices(4, n=9, noise=0.5), matrices(4, n=9, noise=0.4)
    strata = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    variance = 0.0
    for stratum, n in ((0, 4), (1, 5)):
        changes = []
        for left_out in np.flatnonzero(strata == stratum):
            weights = np.where(strata == stratum, n / (n - 1), 1)
            weights[left_out] = 0
            pooled = [np.tensordot(weights, stack, 1) for stack in (after, before)]
            changes.append(mean_iou(pooled[0]) - mean_iou(pooled[1]))
        variance += (n - 1) / n * float(np.sum((changes - np.mean(changes)) ** 2))
    reach = student(0.9, 7) * math.sqrt(variance)
    found = estimate_difference(after, before, strata=strata, confidence=0.9)
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach), rel=1e-5)
    assert found.value == dataset_miou(after) - dataset_miou(before)


def test_a_sample_of_one_image_among_others_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 1 has one image"):
        estimate_difference(matrices(1, n=3), matrices(2, n=3), strata=np.array([0, 0, 1]))


def test_one_image_says_nothing_of_others() -> None:
    one, other = matrices(1, n=1), matrices(2, n=1)
    assert (estimate_miou(one).low, estimate_miou(one).high) == (0, 1)
    found = estimate_difference(one, other)
    assert (found.low, found.high) == (-1, 1)
    with_void = [np.concatenate([stack, np.zeros_like(stack)]) for stack in (one, other)]
    found = estimate_difference(*with_void)
    assert (found.low, found.high) == (-1, 1), "an image of nothing but void is none"


def test_images_without_a_fault_leave_room_for_one() -> None:
    """Of 30 trials that all succeed, the limit of Clopper and Pearson is 0.884."""
    perfect = np.repeat(np.pad(np.diag([5, 5]), ((0, 0), (0, 1)))[None], 30, axis=0)
    found = estimate_miou(perfect)
    assert (found.low, found.value, found.high) == (pytest.approx(0.025 ** (1 / 30)), 1, 1)
    never = perfect[:, ::-1]
    found = estimate_miou(never)
    assert (found.low, found.value, found.high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 30)))


def test_all_figures_are_those_of_the_metrics_each_inside_its_interval() -> None:
    data = matrices(3, n=20)
    data[:, 2], data[:, :, 2] = 0, 0
    found = estimate_all(data, [0, 2])
    assert found.images == 20
    assert found.dataset_miou == estimate_miou(data, [0, 2])
    assert found.image_miou.value == image_miou(data, [0, 2])
    assert found.pixel_accuracy.value == pixel_accuracy(data.sum(axis=0))
    ious = iou_per_class(data.sum(axis=0))
    assert [e.value for e in found.per_class] == pytest.approx(ious.tolist(), nan_ok=True)
    assert found.per_class[1] == estimate_miou(data, [1])
    assert all(math.isnan(bound) for bound in (found.per_class[2].low, found.per_class[2].high))
    for estimate in (found.dataset_miou, found.image_miou, found.pixel_accuracy, *found.per_class[:2]):
        assert 0 < estimate.low < estimate.value < estimate.high < 1


def test_differences_between_samples_are_no_uncertainty_of_a_stratified_interval() -> None:
    """Of twice as many easy images as hard ones there always are twice as many."""
    easy, hard = matrices(1, n=1, noise=0.1), matrices(1, n=1, noise=0.8)
    before = np.concatenate([np.repeat(easy, 8, axis=0), np.repeat(hard, 4, axis=0)])
    after = np.repeat(easy, 12, axis=0)
    strata = np.repeat([0, 1], [8, 4])
    stratified = estimate_difference(after, before, strata=strata)
    one_bag = estimate_difference(after, before)
    assert stratified.low == pytest.approx(stratified.high) == pytest.approx(stratified.value)
    assert one_bag.low < stratified.low < one_bag.high


@pytest.mark.parametrize(("confidence", "needed"), [(0.9, 5), (0.95, 6), (0.99, 8)])
def test_fewer_images_than_the_sign_test_needs_are_too_few_for_an_interval(
    confidence: float, needed: int
) -> None:
    tail = (1 - confidence) / 2
    assert images_needed(confidence) == needed
    assert 0.5**needed <= tail < 0.5 ** (needed - 1)


def test_a_model_does_not_differ_from_itself() -> None:
    found = estimate_difference(matrices(1), matrices(1))
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_a_difference_changes_sign_with_the_order() -> None:
    better, worse = matrices(1, noise=0.1), matrices(1, noise=0.6)
    forth = estimate_difference(better, worse)
    back = estimate_difference(worse, better)
    assert forth.low > 0
    assert (back.low, back.value, back.high) == pytest.approx((-forth.high, -forth.value, -forth.low))


def test_unpaired_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        estimate_difference(matrices(1, n=3), matrices(1, n=4))


def test_no_images_give_no_value() -> None:
    found = estimate_miou(np.zeros((0, 3, 4), np.int64))
    assert math.isnan(found.value)


def test_images_of_nothing_but_void_give_no_value_and_no_warning() -> None:
    found = estimate_miou(np.zeros((2, 3, 4), np.int64))
    assert math.isnan(found.value)
    assert math.isnan(found.low)
