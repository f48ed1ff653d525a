"""Joint histograms, IoU and pixel accuracy: by hand, against scikit-learn and mmseg, then as properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sk

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.core.metrics import (
    confusion_matrix,
    dataset_miou,
    image_miou,
    iou_per_class,
    joint_histogram,
    mean_iou,
    pixel_accuracy,
)

CLASSES = 4


def label_maps() -> st.SearchStrategy[LabelMap]:
    return hnp.arrays(np.uint8, (5, 6), elements=st.sampled_from([*range(CLASSES), VOID]))


def random_map(rng: np.random.Generator, void: bool = True) -> LabelMap:
    found = rng.integers(0, CLASSES, (17, 23), np.uint8)
    if void:
        found[rng.random(found.shape) < 0.1] = VOID
    return found


def test_joint_histogram_of_a_2x2_pair_by_hand() -> None:
    rows = np.array([[0, 1], [1, VOID]], np.uint8)
    columns = np.array([[0, 0], [1, 1]], np.uint8)
    assert joint_histogram(rows, columns, 2).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]


def test_confusion_matrix_drops_void_truth_and_keeps_void_predictions_as_misses() -> None:
    truth = np.array([[0, 1], [1, VOID]], np.uint8)
    prediction = np.array([[0, VOID], [1, 1]], np.uint8)
    assert confusion_matrix(truth, prediction, 2).tolist() == [[1, 0, 0], [0, 1, 1]]


def test_iou_of_a_2x2_pair_by_hand() -> None:
    truth = np.array([[0, 0], [1, 1]], np.uint8)
    prediction = np.array([[0, 1], [1, 1]], np.uint8)
    matrix = confusion_matrix(truth, prediction, 3)
    assert iou_per_class(matrix)[:2].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert math.isnan(iou_per_class(matrix)[2])
    assert mean_iou(matrix) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert pixel_accuracy(matrix) == 3 / 4


def test_a_void_prediction_lowers_iou_and_accuracy() -> None:
    truth = np.zeros((2, 2), np.uint8)
    prediction = np.array([[0, 0], [0, VOID]], np.uint8)
    assert mean_iou(confusion_matrix(truth, prediction, 2)) == 3 / 4
    assert pixel_accuracy(confusion_matrix(truth, prediction, 2)) == 3 / 4


def test_an_empty_matrix_has_no_value() -> None:
    empty = np.zeros((2, 3), np.int64)
    assert math.isnan(mean_iou(empty))
    assert math.isnan(pixel_accuracy(empty))
    assert math.isnan(image_miou(empty[None]))


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(4,\)"):
        joint_histogram(np.zeros((2, 2), np.uint8), np.zeros(4, np.uint8), 2)


def test_dataset_and_image_miou_are_different_means() -> None:
    first = confusion_matrix(np.zeros((1, 4), np.uint8), np.zeros((1, 4), np.uint8), 2)
    second = confusion_matrix(np.ones((1, 2), np.uint8), np.zeros((1, 2), np.uint8), 2)
    both = np.stack([first, second])
    assert dataset_miou(both) == pytest.approx((4 / 6 + 0) / 2)
    assert image_miou(both) == pytest.approx((1 + 0) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_confusion_matrix_and_iou_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = random_map(rng), random_map(rng, void=False)
    counted = truth != VOID
    matrix = confusion_matrix(truth, prediction, CLASSES)
    expected = sk.confusion_matrix(truth[counted], prediction[counted], labels=range(CLASSES))
    assert matrix[:, :-1].tolist() == expected.tolist()
    jaccard = sk.jaccard_score(truth[counted], prediction[counted], labels=range(CLASSES), average=None)
    assert iou_per_class(matrix).tolist() == pytest.approx(jaccard.tolist())
    assert pixel_accuracy(matrix) == pytest.approx(sk.accuracy_score(truth[counted], prediction[counted]))


@given(label_maps(), label_maps())
def test_joint_histogram_counts_every_pixel_once_and_turns_with_the_roles(
    one: LabelMap, two: LabelMap
) -> None:
    joint = joint_histogram(one, two, CLASSES)
    assert joint.sum() == one.size
    assert joint.sum(1)[:-1].tolist() == [int((one == k).sum()) for k in range(CLASSES)]
    assert (joint_histogram(two, one, CLASSES) == joint.T).all()


@given(label_maps(), label_maps(), st.permutations(range(CLASSES)))
def test_mean_iou_is_in_range_symmetric_and_blind_to_the_names_of_classes(
    one: LabelMap, two: LabelMap, names: list[int]
) -> None:
    value = mean_iou(joint_histogram(one, two, CLASSES)[:-1, :-1])
    renamed = np.arange(256, dtype=np.uint8)
    renamed[:CLASSES] = names
    again = mean_iou(joint_histogram(renamed[two], renamed[one], CLASSES)[:-1, :-1])
    assert value == pytest.approx(again, nan_ok=True)
    assert math.isnan(value) or 0 <= value <= 1


@given(label_maps())
def test_a_map_agrees_with_itself(one: LabelMap) -> None:
    matrix = joint_histogram(one, one, CLASSES)[:-1, :-1]
    if matrix.any():
        assert mean_iou(matrix) == 1.0
        assert pixel_accuracy(matrix) == 1.0


@given(st.lists(st.tuples(label_maps(), label_maps()), min_size=1, max_size=4))
def test_dataset_miou_does_not_depend_on_the_order_of_images(pairs: list[tuple[LabelMap, LabelMap]]) -> None:
    matrices = np.stack([confusion_matrix(t, p, CLASSES) for t, p in pairs])
    assert dataset_miou(matrices) == pytest.approx(dataset_miou(matrices[::-1]), nan_ok=True)
    assert image_miou(matrices) == pytest.approx(image_miou(matrices[::-1]), nan_ok=True)


def test_miou_over_some_classes_leaves_the_others_out_of_the_mean_only() -> None:
    matrix = np.array([[6, 2, 0], [0, 4, 0], [1, 0, 0]])
    every = iou_per_class(matrix)
    assert every[2] == 0
    assert mean_iou(matrix, [0, 1]) == pytest.approx((6 / 9 + 4 / 6) / 2)
    assert dataset_miou(np.stack([matrix, matrix]), [1]) == pytest.approx(4 / 6)
    assert np.isnan(mean_iou(np.zeros((3, 3), int), [0, 1]))
