"""Area windows and M, Eq. (2), by hand."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from mad_backend.core.id_column import IdColumn
from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.core.records import Metric, Provenance, Role
from mad_backend.core.scores import ClassAreas, PairScores
from mad_backend.core.selection import (
    MIN_TRAINING_IMAGES,
    Cell,
    ShortCell,
    Window,
    area_windows,
    select,
)
from tests.core.few_scores import PIXELS, Score, batches, columns

LABELS = LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat", "dog")))
WIDE = {1: Window(0.0, 1.0, 99), 2: Window(0.0, 1.0, 99)}


def map_with(cat_pixels: int, size: int = 100) -> LabelMap:
    flat = np.zeros(size, np.uint8)
    flat[:cat_pixels] = 1
    return flat.reshape(1, size)


def test_windows_are_the_quartiles_of_the_images_that_hold_the_class() -> None:
    maps = [map_with(n) for n in range(1, 22)] + [map_with(0)] * 5
    assert area_windows(maps, LABELS)[1] == Window(pytest.approx(0.06), pytest.approx(0.16), 21)


def test_quantiles_are_interpolated_linearly() -> None:
    maps = [map_with(n) for n in range(1, 21)]
    assert area_windows(maps, LABELS)[1] == Window(pytest.approx(0.0575), pytest.approx(0.1525), 20)


def test_a_rare_class_gets_a_widened_window_and_says_so() -> None:
    window = area_windows([map_with(n) for n in range(1, MIN_TRAINING_IMAGES)], LABELS)[1]
    assert window == Window(pytest.approx(0.019), pytest.approx(0.181), 19, is_widened=True)


def test_a_class_never_seen_takes_any_share() -> None:
    assert area_windows([map_with(3)], LABELS)[2] == Window(0.0, 1.0, 0, is_widened=True)


def test_windows_are_for_foreground_classes_only() -> None:
    assert set(area_windows([], LABELS)) == {1, 2}


@pytest.mark.parametrize(("share", "is_in"), [(0.2, True), (0.4, True), (0.1999, False), (0.4001, False)])
def test_bounds_of_a_window_are_inclusive(share: float, is_in: bool) -> None:
    found = select(batches([Score("a", 0.5, (share, 0))]), {1: Window(0.2, 0.4, 30)}, 1)
    assert bool(found.candidates) is is_in


def test_an_image_without_the_class_is_not_in_its_sub_pool_even_when_the_window_starts_at_zero() -> None:
    nothing = ClassAreas(np.array([0, 1], np.int32), np.array([1], np.uint8), np.array([0], np.uint32))
    scores = columns([Score("a", 0.9, (0, 0))])
    assert not select({"g": [scores]}, WIDE, 5).candidates
    assert not select({"g": [replace(scores, target=nothing)]}, WIDE, 5).candidates


def test_both_roles_choose_by_the_defenders_own_map() -> None:
    pool = [Score("a", 0.9, (0.5, 0), (0, 0.5)), Score("b", 0.8, (0.5, 0))]
    found = select(batches(pool), WIDE, 1)
    assert [c.image_id for c in found.candidates] == ["a"]
    assert found.candidates[0].provenance == (
        Provenance("g", 1, Role.TARGET, 1, 0.9),
        Provenance("g", 2, Role.COMPETITOR, 1, 0.9),
    )


def test_the_other_distance_gives_another_order() -> None:
    found = select(batches([Score("a", 0.9), Score("b", 0.8)]), WIDE, 1, metric=Metric.PIXEL_AGREEMENT)
    assert [c.image_id for c in found.candidates] == ["b"]
    assert found.candidates[0].discrepancy == pytest.approx(0.2)


def test_ties_are_broken_by_image_id_and_counted() -> None:
    found = select(batches([Score(i, 0.5) for i in "dcab"], 2), WIDE, 2)
    assert [c.image_id for c in found.candidates] == ["a", "b"]
    assert [c.provenance[0].rank for c in found.candidates] == [1, 2]
    assert found.cells[0] == Cell("g", 1, Role.TARGET, 4, 2, 0.5, 0.5, 2, 0)


def test_ids_are_ordered_as_strings_are() -> None:
    names = ["", "a", "ab", "a/b", "Z", "ä", "中", "\U0001f600", "a" * 40, "a" * 39 + "b", "é", "z"]
    for n3 in (1, 4, len(names)):
        found = select(batches([Score(i, 0.5) for i in names], 3), {1: WIDE[1]}, n3)
        assert [c.image_id for c in found.candidates] == sorted(names)[:n3]


def test_excluded_images_leave_their_place_to_the_next_and_are_not_eligible() -> None:
    found = select(batches([Score("a", 0.9), Score("b", 0.8)]), WIDE, 1, excluded=["a", "unknown"])
    assert [c.image_id for c in found.candidates] == ["b"]
    assert found.candidates[0].provenance[0].rank == 1
    assert found.cells[0].eligible == 1
    assert found.images == {"g": 2}


def test_cells_with_too_few_images_are_reported_with_what_they_had() -> None:
    found = select(batches([Score("a", 0.9)]), WIDE, 2)
    assert found.short_cells == (
        ShortCell("g", 1, Role.TARGET, 1),
        ShortCell("g", 1, Role.COMPETITOR, 0),
        ShortCell("g", 2, Role.TARGET, 0),
        ShortCell("g", 2, Role.COMPETITOR, 0),
    )


def test_an_empty_pool_gives_an_empty_m() -> None:
    found = select({"g": []}, WIDE, 3)
    assert not found.candidates
    assert len(found.short_cells) == 4
    assert found.cells[0] == Cell("g", 1, Role.TARGET, 0, 0, None, None, 0, 0)


def test_the_discrepancy_of_a_candidate_is_its_largest() -> None:
    scores = [Score("a", 0.3, competitor="g"), Score("a", 0.7, competitor="h")]
    assert select(batches(scores, competitors="gh"), WIDE, 1).candidates[0].discrepancy == 0.7


def test_an_image_without_pixels_is_never_eligible() -> None:
    empty = replace(columns([Score("a", 0.9)]), pixels=np.zeros(1, np.uint32))
    assert not select({"g": [empty]}, {1: WIDE[1]}, 1).candidates


def test_label_sets_of_255_classes_have_255_cells_a_role() -> None:
    rng = np.random.default_rng(0)
    n, each = 500, 6
    ids = [f"i{k:03d}" for k in range(n)]
    classes = np.stack([np.sort(rng.choice(255, each, replace=False)) for _ in range(n)])
    pixels = rng.integers(1, 1000, (n, each))
    areas = ClassAreas(
        np.arange(0, n * each + 1, each, dtype=np.int32),
        classes.ravel().astype(np.uint8),
        pixels.ravel().astype(np.uint32),
    )
    d, none = rng.random(n), np.zeros(n, np.uint64)
    scores = PairScores(ids, none, none, np.full(n, PIXELS, np.uint32), d, d, areas, areas)
    windows = {k: Window(0.01, 0.09, 30) for k in range(255)}
    found = select({"g": [scores]}, windows, 3)
    assert len(found.cells) == 2 * 255
    for cell in found.cells:
        rows, columns = np.nonzero(classes == cell.class_id)
        inside = [i for i, c in zip(rows, columns, strict=True) if 0.01 <= pixels[i, c] / PIXELS <= 0.09]
        assert cell.eligible == len(inside)
        wanted = sorted(inside, key=lambda i: -d[i])[:3]
        chosen = {
            c.image_id
            for c in found.candidates
            for p in c.provenance
            if (p.class_id, p.role) == (cell.class_id, cell.role)
        }
        assert chosen == {ids[i] for i in wanted}


@dataclass
class Stream:
    """Batches drawn when they are asked for, `count` of them; counts how often it was gone through."""

    count: int
    rows: int = 2000
    read: int = 0

    def __iter__(self) -> Iterator[PairScores]:
        self.read += 1
        for number in range(self.count):
            rng = np.random.default_rng(number)
            ids = [f"image-{number:05d}-{row:05d}" for row in range(self.rows)]
            offsets = np.arange(0, 3 * self.rows + 1, 3, dtype=np.int32)
            classes = np.tile(np.arange(3, dtype=np.uint8), self.rows)
            areas = ClassAreas(offsets, classes, rng.integers(1, 9000, 3 * self.rows, np.uint32))
            looks = rng.integers(0, 4, self.rows, np.uint64)
            d = rng.integers(0, 50, self.rows) / 50
            pixels = np.full(self.rows, PIXELS, np.uint32)
            yield PairScores(IdColumn.of(ids), looks, looks, pixels, d, d, areas, areas)


def test_what_is_held_does_not_grow_with_the_pool() -> None:
    select({"g": Stream(1)}, WIDE, 25)
    peaks = []
    for count in (4, 40):
        tracemalloc.start()
        select({"g": Stream(count)}, WIDE, 25, excluded=["image-00000-00000"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_near_duplicates_are_looked_for_in_the_whole_pool_without_holding_it() -> None:
    stream = Stream(5)
    found = select({"g": stream}, WIDE, 3, near_duplicates=0)
    assert [cell.chosen for cell in found.cells] == [3] * 4
    many = Stream(5)
    exhausted = select({"g": many}, WIDE, 6, near_duplicates=0)
    assert [cell.chosen for cell in exhausted.cells] == [4] * 4, "there are only four looks"
    assert 2 <= many.read <= 4
    with pytest.raises(ValueError, match="not an iterator"):
        select({"g": iter(stream)}, WIDE, 3, near_duplicates=0)


def test_a_near_duplicate_leaves_its_place_to_the_next() -> None:
    pool = [
        Score("a", 0.9, look=0b0000),
        Score("b", 0.8, look=0b0011),
        Score("c", 0.7, look=0b0111),
        Score("d", 0.6, look=0b1111),
    ]
    found = select(batches(pool), {1: WIDE[1]}, 2, near_duplicates=2)
    assert [c.image_id for c in found.candidates] == ["a", "c"]
    assert [c.provenance[0].rank for c in found.candidates] == [1, 2]
    assert found.cells[0].near_duplicates == 1
    assert [c.image_id for c in select(batches(pool), {1: WIDE[1]}, 2).candidates] == ["a", "b"]
