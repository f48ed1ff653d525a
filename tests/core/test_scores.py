"""Columns of scores equal what plain numpy says of each pair of maps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mad_backend.core.discrepancy import discrepancy
from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Metric
from mad_backend.core.scores import ClassAreas, scores_of
from tests.core.label_maps import counted, pairs


def dense(areas: ClassAreas, classes: int) -> np.ndarray:
    found = np.zeros((len(areas.offsets) - 1, classes), np.int64)
    for i, (begin, end) in enumerate(zip(areas.offsets, areas.offsets[1:], strict=False)):
        found[i, areas.class_ids[begin:end]] = areas.pixels[begin:end]
    return found


def plain_distances(rows: LabelMap, columns: LabelMap, classes: int) -> tuple[float, float]:
    """Eq. (1) by its words: pixels that are void in neither map; classes present in either of them."""
    counts = (rows < classes) & (columns < classes)
    if not counts.any():
        return 0.0, 0.0
    one, two = rows[counts], columns[counts]
    ious = [
        ((one == k) & (two == k)).sum() / ((one == k) | (two == k)).sum()
        for k in range(classes)
        if ((one == k) | (two == k)).any()
    ]
    return 1 - float(np.mean(ious)), 1 - float((one == two).mean())


@given(st.lists(pairs(), min_size=1, max_size=4), st.sampled_from([3, 21, 254]))
@settings(max_examples=60, deadline=None)
def test_columns_hold_both_distances_and_the_areas_of_every_pair(
    maps: list[tuple[LabelMap, LabelMap]], classes: int
) -> None:
    ids = [str(i) for i in range(len(maps))]
    zeros = np.zeros(len(maps), np.uint64)
    joints = [counted(*pair, classes) for pair in maps]
    scores = scores_of(ids, zeros, zeros, iter(joints))
    expected = [plain_distances(*pair, classes) for pair in maps]
    assert np.allclose(np.stack([scores.miou, scores.pixel_agreement], 1), expected, rtol=0, atol=1e-12)
    assert scores.miou.tolist() == [discrepancy(j, Metric.MIOU) for j in joints]
    assert scores.pixels.tolist() == [pair[0].size for pair in maps]
    for areas, which in ((scores.target, 0), (scores.competitor, 1)):
        plain = [np.bincount(pair[which].ravel(), minlength=256)[:classes] for pair in maps]
        assert np.array_equal(dense(areas, classes), plain)
        assert (areas.pixels > 0).all()


def test_no_images_give_empty_columns() -> None:
    none = np.zeros(0, np.uint64)
    scores = scores_of([], none, none, iter([]))
    assert len(scores) == 0
    assert scores.target.offsets.tolist() == [0]
