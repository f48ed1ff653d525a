"""Highest scores, k-center and nearest neighbours: by hand, and against plain loops and scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from mad_backend.core.acquisition import highest, k_center, nearest


def unit(n: int, d: int, seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_highest_come_first_and_ties_go_by_image_id() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.1], np.float32)
    assert highest(["d", "c", "a", "b"], scores, 3) == ["c", "a", "d"]
    assert highest(["d", "c", "a", "b"], -scores, 2) == ["b", "a"]
    assert highest(["d", "c"], scores[:2], 5) == ["c", "d"]
    assert highest([], scores[:0], 5) == []


def test_k_center_takes_the_farthest_from_all_that_is_taken() -> None:
    line = np.array([[0], [1], [4], [9], [10]], np.float32)
    assert k_center(line, line[:1], 3).tolist() == [4, 2, 1]
    assert k_center(line, line[[0, 4]], 2).tolist() == [2, 1]
    # Without centers from the row nearest to the mean, 4.8; then 10 is farther than 0.
    assert k_center(line, line[:0], 3).tolist() == [2, 4, 0]
    assert sorted(k_center(line, line[:0], 9).tolist()) == [0, 1, 2, 3, 4]
    assert k_center(line[:0], line, 3).tolist() == []


def test_k_center_takes_no_row_twice_and_of_equal_rows_the_first() -> None:
    same = np.ones((4, 2), np.float32)
    assert k_center(same, same[:0], 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("centers", [0, 1, 300])
def test_k_center_is_that_of_a_plain_loop(centers: int) -> None:
    points, given = unit(60, 5, 0), unit(centers, 5, 1)
    taken = given.astype(np.float64)
    expected: list[int] = []
    for _ in range(12):
        if len(taken):
            farness = [np.linalg.norm(point - taken, axis=1).min() for point in points]
        else:
            farness = [-np.linalg.norm(point - points.mean(0)) for point in points]
        expected.append(int(np.argmax(farness)))
        taken = np.concatenate([taken, points[expected[-1]][None]])
    assert k_center(points, given, 12).tolist() == expected


def test_the_nearest_are_those_of_scikit_learn() -> None:
    points = unit(200, 8, 2) * np.random.default_rng(3).uniform(0.5, 2, (200, 1)).astype(np.float32)
    wanted = points[7] * 3
    distances, expected = NearestNeighbors(n_neighbors=9, metric="cosine").fit(points).kneighbors([wanted])
    rows, cosines = nearest(wanted, points, 9)
    assert rows.tolist() == expected[0].tolist()
    assert rows[0] == 7
    np.testing.assert_allclose(cosines, 1 - distances[0], atol=1e-6)


def test_equally_near_rows_come_in_their_order_and_nothing_is_like_nothing() -> None:
    points = np.array([[0, 0], [0, 2], [3, 0], [0, 1]], np.float32)
    rows, cosines = nearest(np.array([0, 1], np.float32), points, 4)
    assert rows.tolist() == [1, 3, 0, 2]
    assert cosines.tolist() == [1, 1, 0, 0]
    assert nearest(points[0], points, 9)[1].tolist() == [0, 0, 0, 0]
