"""Bootstrap intervals of dataset mIoU."""

import math

import numpy as np
import pytest

from mad_backend.core.metrics import confusion_matrix, dataset_miou
from mad_backend.core.statistics import bootstrap_difference, bootstrap_miou


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
