"""Area windows and M, Eq. (2): by hand, against a slow and plain reference, then as properties."""

import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mad_backend.core.id_column import IdColumn
from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.core.records import Metric, Provenance, Role
from mad_backend.core.scores import ClassAreas, PairScores
from mad_backend.core.selection import (
    MIN_TRAINING_IMAGES,
    Cell,
    Selection,
    ShortCell,
    Window,
    area_windows,
    select,
)

LABELS = LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat", "dog")))
WIDE = {1: Window(0.0, 1.0, 99), 2: Window(0.0, 1.0, 99)}
PIXELS = 10_000


class Score(NamedTuple):
    """One image of one competitor; `target` and `other` are shares of (cat, dog)."""

    image_id: str
    d: float
    target: tuple[float, float] = (0.5, 0.0)
    other: tuple[float, float] = (0.0, 0.0)
    competitor: str = "g"
    look: int = 0


def areas_of(shares: Sequence[Sequence[float]]) -> ClassAreas:
    pixels = [[(k, round(share * PIXELS)) for k, share in enumerate(row, start=1) if share] for row in shares]
    entries = [entry for row in pixels for entry in row]
    return ClassAreas(
        np.cumsum([0, *(len(row) for row in pixels)]).astype(np.int32),
        np.array([k for k, _ in entries], np.uint8),
        np.array([n for _, n in entries], np.uint32),
    )


def batches(scores: Sequence[Score], size: int = 100, competitors: str = "g") -> dict[str, list[PairScores]]:
    """At most `size` images each, in the order given, by competitor."""
    found = {}
    for competitor in competitors:
        own = [s for s in scores if s.competitor == competitor]
        found[competitor] = [columns(own[start : start + size]) for start in range(0, len(own), size)]
    return found


def columns(scores: Sequence[Score]) -> PairScores:
    count = len(scores)
    return PairScores(
        [s.image_id for s in scores],
        np.zeros(count, np.uint64),
        np.array([s.look for s in scores], np.uint64),
        np.full(count, PIXELS, np.uint32),
        np.array([s.d for s in scores]),
        np.array([1 - s.d for s in scores]),
        areas_of([s.target for s in scores]),
        areas_of([s.other for s in scores]),
    )


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


SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.9])
LOOKS = st.sampled_from([0, 1, 3, 7, 8, 1 << 63])
IDS = st.sampled_from(["0", "1", "10", "2", "a", "ab", "b", "é", "中", "z" * 20])
POOLS = st.dictionaries(
    st.tuples(IDS, st.sampled_from(["g", "h"])),
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), SHARES, SHARES, SHARES, SHARES, LOOKS),
    max_size=20,
)
WINDOWS = {1: Window(0.1, 0.4, 30), 2: Window(0.25, 0.9, 30)}
Pool = dict[tuple[str, str], tuple[float, float, float, float, float, int]]


def scores_of(pool: Pool) -> list[Score]:
    return [Score(i, v[0], (v[1], v[2]), (v[3], v[4]), g, v[5]) for (i, g), v in pool.items()]


def plain_reading(
    pool: Pool, n3: int, excluded: Iterable[str], near_duplicates: int | None
) -> dict[tuple[str, int, Role], tuple[int, list[tuple[str, float]], int]]:
    """Cell -> (eligible images, chosen ones with d, and how many others have the last one's d)."""
    found = {}
    for competitor in ("g", "h"):
        for k, window in WINDOWS.items():
            for role in Role:
                cell = []
                for (image_id, name), values in pool.items():
                    share = values[k if role is Role.TARGET else k + 2]
                    inside = window.low <= share <= window.high
                    if name == competitor and image_id not in excluded and share > 0 and inside:
                        cell.append((image_id, values[0], values[5]))
                cell.sort(key=lambda entry: entry[0])
                cell.sort(key=lambda entry: entry[1], reverse=True)
                chosen: list[tuple[str, float, int]] = []
                for entry in cell:
                    is_new = near_duplicates is None or all(
                        (entry[2] ^ other[2]).bit_count() > near_duplicates for other in chosen
                    )
                    if is_new and len(chosen) < n3:
                        chosen.append(entry)
                tied = [e for e in cell if chosen and e[1] == chosen[-1][1] and e not in chosen]
                pairs = [entry[:2] for entry in chosen]
                found[competitor, k, role] = (len(cell), pairs, len(tied) if len(chosen) == n3 else 0)
    return found


def chosen_in(found: Selection) -> dict[tuple[str, int, Role], list[tuple[str, float]]]:
    ranked: dict[tuple[str, int, Role], list[tuple[int, str, float]]] = {}
    for candidate in found.candidates:
        for p in candidate.provenance:
            cell = ranked.setdefault((p.competitor, p.class_id, p.role), [])
            cell.append((p.rank, candidate.image_id, p.discrepancy))
    for cell in ranked.values():
        cell.sort()
        assert [rank for rank, _, _ in cell] == list(range(1, len(cell) + 1))
    return {key: [(i, d) for _, i, d in cell] for key, cell in ranked.items()}


EXCLUDED = st.sets(st.one_of(IDS, st.just("elsewhere")), max_size=4)


@given(POOLS, st.integers(1, 4), EXCLUDED, st.integers(1, 7))
def test_m_is_what_a_plain_reading_of_equation_2_gives(
    pool: Pool, n3: int, excluded: set[str], size: int
) -> None:
    wanted = plain_reading(pool, n3, excluded, None)
    found = select(batches(scores_of(pool), size, "gh"), WINDOWS, n3, excluded)
    assert chosen_in(found) == {key: chosen for key, (_, chosen, _) in wanted.items() if chosen}
    assert {(c.competitor, c.class_id, c.role): (c.eligible, c.tied) for c in found.cells} == {
        key: (eligible, tied) for key, (eligible, _, tied) in wanted.items()
    }
    for cell in found.cells:
        chosen = wanted[cell.competitor, cell.class_id, cell.role][1]
        assert cell.chosen == len(chosen)
        assert (cell.largest, cell.smallest) == ((chosen[0][1], chosen[-1][1]) if chosen else (None, None))


@given(POOLS, st.integers(1, 4), st.integers(0, 2), st.integers(1, 7))
def test_near_duplicates_are_passed_over_in_order_of_rank(
    pool: Pool, n3: int, near_duplicates: int, size: int
) -> None:
    wanted = plain_reading(pool, n3, (), near_duplicates)
    pairs = batches(scores_of(pool), size, "gh")
    found = select(pairs, WINDOWS, n3, near_duplicates=near_duplicates)
    assert chosen_in(found) == {key: chosen for key, (_, chosen, _) in wanted.items() if chosen}
    assert [c.eligible for c in found.cells] == [eligible for eligible, _, _ in wanted.values()]
    best = plain_reading(pool, n3, (), None)
    for cell in found.cells:
        key = cell.competitor, cell.class_id, cell.role
        chosen = {image_id for image_id, _ in wanted[key][1]}
        assert cell.near_duplicates == sum(image_id not in chosen for image_id, _ in best[key][1])


@given(POOLS, st.integers(1, 4), st.sampled_from([None, 1]), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_m_does_not_depend_on_the_order_of_scores_and_keeps_its_bound(pool, n3, near, random) -> None:  # noqa: ANN001
    scores = scores_of(pool)
    found = select(batches(scores, 100, "gh"), WINDOWS, n3, near_duplicates=near)
    random.shuffle(scores)
    size = random.randint(1, 9)
    assert select(batches(scores, size, "gh"), WINDOWS, n3, near_duplicates=near) == found
    assert len(found.candidates) <= 2 * 2 * len(WINDOWS) * n3
    assert [c.image_id for c in found.candidates] == sorted({c.image_id for c in found.candidates})
