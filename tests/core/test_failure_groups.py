"""Groups of failures and their trends, by hand."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mad_backend.core.confusions import Confusion, Position, Size
from mad_backend.core.failure_groups import FailedImage, by_appearance, by_confusion, clusters, trends

SMALL, LARGE = (Size.SMALL, Position.BORDER), (Size.LARGE, Position.CENTRE)


def failed(
    image_id: str,
    image_set: str,
    pair: tuple[int, int],
    share: float,
    kind: tuple[Size, Position] = SMALL,
    found: float = 0.1,
    **miou: float,
) -> FailedImage:
    return FailedImage(image_id, image_set, "f0", Confusion(*pair, share, 0.5, *kind), found, miou)


IMAGES = [
    failed("a", "S(1)", (1, 0), 0.1, found=0.1, f0=0.1, f1=0.5),
    failed("b", "S(1)", (1, 0), 0.2, found=0.3, f0=0.3, f1=0.7),
    failed("c", "S(1)", (2, 1), 0.4, LARGE, f0=0.1, f1=0.2),
    failed("d", "T(1)", (1, 0), 0.1, LARGE, found=math.nan, f0=math.nan, f1=math.nan),
    failed("e", "S(2)", (1, 0), 0.1, found=0.2, f1=0.2),
]


def test_a_group_is_a_pair_and_the_one_with_the_largest_wrong_area_comes_first() -> None:
    first, second = by_confusion(IMAGES)
    assert (first.truth, first.predicted) == (1, 0)
    assert first.area == pytest.approx(0.5)
    assert [m.image_id for m in first.members] == ["b", "a", "d", "e"]
    assert first.example == "b"
    assert first.kinds == {SMALL: 3, LARGE: 1}
    assert (second.truth, second.predicted, [m.image_id for m in second.members]) == (2, 1, ["c"])


def test_a_trend_counts_and_averages_set_by_set() -> None:
    first, _ = by_confusion(IMAGES)
    one, tested, two = trends(first, {"S(1)": 20, "T(1)": 20, "S(2)": 10}, ["f0", "f1"])
    assert (one.image_set, one.images, one.rated_share) == ("S(1)", 2, 0.1)
    assert one.found == pytest.approx(0.2)
    assert one.miou == {"f0": pytest.approx(0.2), "f1": pytest.approx(0.6)}
    assert (tested.images, tested.rated_share) == (1, 0.05)
    assert math.isnan(tested.found)
    assert (two.images, two.rated_share, two.found) == (1, 0.1, 0.2)
    assert math.isnan(two.miou["f0"])
    assert two.miou["f1"] == 0.2


def test_a_group_that_is_gone_has_a_trend_of_no_images() -> None:
    _, second = by_confusion(IMAGES)
    gone = trends(second, {"S(2)": 10}, ["f1"])[0]
    assert (gone.images, gone.rated_share) == (0, 0.0)
    assert math.isnan(gone.found)
    assert math.isnan(gone.miou["f1"])


def blobs(seed: int, sizes: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors near as many axes as there are sizes, shuffled, and of which axis each is."""
    rng = np.random.default_rng(seed)
    own = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = np.eye(16)[own] + rng.normal(0, 0.02, (len(own), 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), own


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_those_that_were_planted(seed: int) -> None:
    points, own = blobs(seed, (5, 9, 20))
    found = clusters(points, 3)
    assert sorted(len(rows) for rows in found) == [5, 9, 20]
    assert all(len(set(own[rows].tolist())) == 1 for rows in found)


def test_copies_of_one_image_are_one_cluster() -> None:
    points = np.repeat(np.eye(4, dtype=np.float32)[:1], 6, axis=0)
    assert [rows.tolist() for rows in clusters(points, 3)] == [[0, 1, 2, 3, 4, 5]]


def test_a_group_by_appearance_is_called_after_its_middle_and_its_commonest_pair() -> None:
    points = np.zeros((8, 3), np.float32)
    points[:4] = [[1, 0, 0], [0.9, 0.3, 0], [0.9, -0.3, 0], [0.9, 0, 0.3]]
    points[4:] = [0, 0, -1]
    pairs = [(1, 0), (1, 0), (1, 0), (2, 0), (2, 1), (2, 1), (1, 2), (1, 2)]
    shares = [0.1, 0.2, 0.1, 0.1, 0.1, 0.3, 0.3, 0.3]
    ids = ["middle", "left", "right", "up", "p", "q", "r", "s"]
    images = [failed(i, "S(1)", pair, share) for i, pair, share in zip(ids, pairs, shares, strict=True)]
    second, first = by_appearance(images, points)[::-1]
    assert (first.truth, first.predicted) == (1, 2)  # of two pairs with two images each, the lower ids
    assert [m.image_id for m in first.members] == ["q", "r", "s", "p"]
    assert (second.example, second.truth, second.predicted) == ("middle", 1, 0)
    assert second.members[0].image_id == "left"
