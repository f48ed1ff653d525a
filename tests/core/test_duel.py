"""Who wins a duel, from confusion matrices alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mad_backend.core.duel import Side, image_mious, score_duel


def matrices(hits: list[int], counted: int = 100) -> NDArray[np.int64]:
    """Of two classes: of `counted` pixels of class 1 so many are found, the others taken for class 0."""
    found = np.zeros((len(hits), 2, 3), np.int64)
    found[:, 1, 1] = hits
    found[:, 1, 0] = counted - np.array(hits)
    return found


BETTER, WORSE = matrices([80, 90, 70, 85, 95, 60, 75, 50]), matrices([20, 10, 30, 15, 25, 60, 5, 55])


def test_the_better_model_wins_by_the_interval_of_the_paired_difference() -> None:
    found = score_duel(BETTER, WORSE, [1])
    assert found.images == 8
    assert found.first.value == pytest.approx(605 / 800)  # by hand: all of class 1 in one matrix
    assert found.second.value == pytest.approx(220 / 800)
    assert found.difference.value == pytest.approx(385 / 800)
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    assert (found.wins, found.losses, found.ties) == (6, 1, 1)
    assert found.sign_p == pytest.approx(
        2 * (1 + 7) / 2**7
    )  # none or one head of seven coins, or of seven tails
    assert found.winner is Side.FIRST


def test_the_other_way_round_the_other_one_wins() -> None:
    one, other = score_duel(BETTER, WORSE, None), score_duel(WORSE, BETTER, None)
    assert other.winner is Side.SECOND
    assert (other.first, other.second) == (one.second, one.first)
    assert (other.wins, other.losses, other.ties) == (one.losses, one.wins, one.ties)
    assert other.difference.value == pytest.approx(-one.difference.value)


def test_nobody_wins_where_the_interval_holds_zero_or_images_are_too_few() -> None:
    up_and_down = matrices([90, 10] * 10), matrices([10, 90] * 10)
    assert score_duel(*up_and_down, None).winner is None
    few = score_duel(BETTER[:5], WORSE[:5], None)
    assert few.difference.low > 0
    assert few.winner is None
    nothing = score_duel(BETTER[:0], WORSE[:0], None)
    assert (nothing.images, nothing.winner, nothing.sign_p) == (0, None, 1.0)


def test_an_image_without_a_counted_class_is_lost_by_who_sees_one_there() -> None:
    right, wrong = np.zeros((2, 1, 3, 4), np.int64)
    right[0, 0, 0] = wrong[0, 0, 2] = 50  # all background; one of them takes it for class 2
    assert image_mious(right, [1, 2]).tolist() == [1.0]
    assert image_mious(wrong, [1, 2]).tolist() == [0.0]
    found = score_duel(right, wrong, [1, 2])
    assert (found.wins, found.losses, found.ties) == (1, 0, 0)


def test_models_measured_on_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        score_duel(BETTER, WORSE[:4], None)
