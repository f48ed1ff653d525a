"""The worst confusion of an image by hand: which pair, how large an object, where."""

import numpy as np
import pytest

from mad_backend.core.confusions import Confusion, Position, Size, position_of, size_of, worst_confusion
from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.core.selection import Window

BACKGROUND, CAR, BOAT = 0, 1, 2
CLASSES = tuple(LabelClass(name, (n, n, n)) for n, name in enumerate(("background", "car", "boat")))
LABELS = LabelSet("three", CLASSES)
WINDOWS = {CAR: Window(0.1, 0.3, 40), BOAT: Window(0.1, 0.3, 40)}


def scene(*objects: tuple[int, slice, slice]) -> LabelMap:
    """10 x 20 pixels of background with rectangles on it."""
    label_map = np.zeros((10, 20), np.uint8)
    for class_id, rows, columns in objects:
        label_map[rows, columns] = class_id
    return label_map


def worst(truth: LabelMap, prediction: LabelMap, labels: LabelSet = LABELS) -> Confusion | None:
    windows = WINDOWS if labels.has_background else {BACKGROUND: Window(0.1, 0.3, 40), **WINDOWS}
    return worst_confusion(truth, prediction, labels, windows)


def test_the_pair_with_most_wrong_pixels_is_told_with_its_share_of_the_pixels_that_count() -> None:
    truth = scene((CAR, slice(0, 3), slice(0, 4)), (BOAT, slice(6, 8), slice(8, 12)))
    truth[9] = VOID
    prediction = scene((BOAT, slice(0, 3), slice(0, 4)))
    # 12 pixels of a car are a boat, 8 of a boat are background, of 200 less a row of void.
    found = worst(truth, prediction)
    assert found == Confusion(CAR, BOAT, 12 / 180, 20 / 180, Size.SMALL, Position.BORDER)


def test_what_is_not_there_is_as_large_as_the_model_makes_it() -> None:
    found = worst(scene(), scene((BOAT, slice(2, 8), slice(5, 15))))
    assert found == Confusion(BACKGROUND, BOAT, 0.3, 0.3, Size.MEDIUM, Position.CENTRE)
    missed = worst(scene((BOAT, slice(1, 9), slice(5, 15))), scene())
    assert missed is not None
    assert (missed.truth, missed.predicted, missed.size) == (BOAT, BACKGROUND, Size.LARGE)


def test_without_a_background_class_0_is_an_object_like_others() -> None:
    streets = LabelSet("streets", CLASSES, has_background=False)
    found = worst(scene(), scene((BOAT, slice(2, 8), slice(5, 15))), streets)
    assert found is not None
    assert (found.truth, found.predicted, found.size) == (BACKGROUND, BOAT, Size.LARGE)


def test_nothing_is_wrong_on_void_or_where_the_model_says_nothing() -> None:
    truth = scene((CAR, slice(0, 5), slice(0, 5)))
    assert worst(truth, truth) is None
    prediction, void_truth = truth.copy(), truth.copy()
    prediction[:5, :5] = VOID
    assert worst(truth, prediction) is None
    void_truth[:5, :5] = VOID
    assert worst(void_truth, scene()) is None


def test_of_equal_pairs_the_one_with_the_lowest_ids_is_told() -> None:
    truth = scene((CAR, slice(2, 4), slice(2, 4)), (BOAT, slice(6, 8), slice(6, 8)))
    found = worst(truth, scene())
    assert found is not None
    assert (found.truth, found.share, found.wrong_share) == (CAR, 4 / 200, 8 / 200)


@pytest.mark.parametrize(
    ("share", "size"),
    [(0.09, Size.SMALL), (0.1, Size.MEDIUM), (0.3, Size.MEDIUM), (0.31, Size.LARGE)],
)
def test_a_size_on_a_bound_of_the_window_is_medium(share: float, size: Size) -> None:
    assert size_of(share, WINDOWS[CAR]) is size


@pytest.mark.parametrize(
    ("rows", "columns", "position"),
    [
        (slice(0, 4), slice(8, 12), Position.BORDER),
        (slice(3, 7), slice(16, 20), Position.BORDER),
        (slice(1, 4), slice(1, 5), Position.EDGE),
        (slice(3, 7), slice(8, 12), Position.CENTRE),
    ],
)
def test_a_position_is_told_by_contact_with_the_border_and_by_the_centroid(
    rows: slice, columns: slice, position: Position
) -> None:
    assert position_of(scene((CAR, rows, columns)) == CAR) is position


def test_a_stray_pixel_at_the_border_does_not_make_a_failure_one_of_the_border() -> None:
    wrong = scene((CAR, slice(2, 8), slice(6, 14))) == CAR
    wrong[0, 0] = True
    # 49 pixels, a square of side 7: a contact of 1 is less than a quarter of it, 2 is not.
    assert position_of(wrong) is Position.CENTRE
    wrong[0, 1] = True
    assert position_of(wrong) is Position.BORDER
