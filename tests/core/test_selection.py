"""Area windows and M, Eq. (2): by hand, against a slow and plain reference, then as properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.core.records import Provenance, Role
from mad_backend.core.selection import MIN_TRAINING_IMAGES, Score, ShortCell, Window, area_windows, select

LABELS = LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat", "dog")))
WIDE = {1: Window(0.0, 1.0, 99), 2: Window(0.0, 1.0, 99)}


def map_with(cat_pixels: int, size: int = 100) -> LabelMap:
    flat = np.zeros(size, np.uint8)
    flat[:cat_pixels] = 1
    return flat.reshape(1, size)


def score(
    image_id: str,
    d: float,
    target: tuple[float, float] = (0.5, 0.0),
    other: tuple[float, float] = (0.0, 0.0),
    competitor: str = "g",
) -> Score:
    """Shares are of (cat, dog)."""
    return Score(image_id, competitor, d, np.array([0.0, *target]), np.array([0.0, *other]))


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
    found = select([score("a", 0.5, (share, 0))], {1: Window(0.2, 0.4, 30)}, ["g"], 1)
    assert bool(found.candidates) is is_in


def test_an_image_without_the_class_is_not_in_its_sub_pool_even_when_the_window_starts_at_zero() -> None:
    assert not select([score("a", 0.9, (0, 0))], WIDE, ["g"], 5).candidates


def test_both_roles_choose_by_the_defenders_own_map() -> None:
    found = select([score("a", 0.9, (0.5, 0), (0, 0.5)), score("b", 0.8, (0.5, 0))], WIDE, ["g"], 1)
    assert [c.image_id for c in found.candidates] == ["a"]
    assert found.candidates[0].provenance == (
        Provenance("g", 1, Role.TARGET, 1, 0.9),
        Provenance("g", 2, Role.COMPETITOR, 1, 0.9),
    )


def test_ties_are_broken_by_image_id() -> None:
    found = select([score(i, 0.5) for i in "cab"], WIDE, ["g"], 2)
    assert [c.image_id for c in found.candidates] == ["a", "b"]
    assert [c.provenance[0].rank for c in found.candidates] == [1, 2]


def test_excluded_images_leave_their_place_to_the_next() -> None:
    found = select([score("a", 0.9), score("b", 0.8)], WIDE, ["g"], 1, excluded=["a"])
    assert [c.image_id for c in found.candidates] == ["b"]
    assert found.candidates[0].provenance[0].rank == 1


def test_cells_with_too_few_images_are_reported_with_what_they_had() -> None:
    found = select([score("a", 0.9)], WIDE, ["g"], 2)
    assert found.short_cells == (
        ShortCell("g", 1, Role.TARGET, 1),
        ShortCell("g", 1, Role.COMPETITOR, 0),
        ShortCell("g", 2, Role.TARGET, 0),
        ShortCell("g", 2, Role.COMPETITOR, 0),
    )


def test_an_empty_pool_gives_an_empty_m() -> None:
    found = select([], WIDE, ["g"], 3)
    assert not found.candidates
    assert len(found.short_cells) == 4


def test_the_discrepancy_of_a_candidate_is_its_largest() -> None:
    scores = [score("a", 0.3, competitor="g"), score("a", 0.7, competitor="h")]
    assert select(scores, WIDE, ["g", "h"], 1).candidates[0].discrepancy == 0.7


SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.9])
POOLS = st.dictionaries(
    st.tuples(st.integers(0, 9).map(str), st.sampled_from(["g", "h"])),
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), SHARES, SHARES, SHARES, SHARES),
    max_size=20,
)
WINDOWS = {1: Window(0.1, 0.4, 30), 2: Window(0.25, 0.9, 30)}


def scores_of(pool: dict[tuple[str, str], tuple[float, ...]]) -> list[Score]:
    return [score(i, v[0], (v[1], v[2]), (v[3], v[4]), g) for (i, g), v in pool.items()]


@given(POOLS, st.integers(1, 4), st.sets(st.integers(0, 9).map(str), max_size=3))
def test_m_is_what_a_plain_reading_of_equation_2_gives(
    pool: dict[tuple[str, str], tuple[float, ...]], n3: int, excluded: set[str]
) -> None:
    expected = set()
    for competitor in ("g", "h"):
        for k, window in WINDOWS.items():
            for role in Role:
                cell = []
                for (image_id, name), values in pool.items():
                    share = values[k if role is Role.TARGET else k + 2]
                    inside = window.low <= share <= window.high
                    if name == competitor and image_id not in excluded and share > 0 and inside:
                        cell.append((image_id, values[0]))
                cell.sort(key=lambda entry: entry[0])
                cell.sort(key=lambda entry: entry[1], reverse=True)
                for rank, (image_id, d) in enumerate(cell[:n3], start=1):
                    expected.add((image_id, Provenance(competitor, k, role, rank, d)))
    found = select(scores_of(pool), WINDOWS, ["g", "h"], n3, excluded)
    assert {(c.image_id, p) for c in found.candidates for p in c.provenance} == expected


@given(POOLS, st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_m_does_not_depend_on_the_order_of_scores_and_keeps_its_bound(pool, n3, random) -> None:  # noqa: ANN001
    scores = scores_of(pool)
    found = select(scores, WINDOWS, ["g", "h"], n3)
    random.shuffle(scores)
    assert select(scores, WINDOWS, ["g", "h"], n3) == found
    assert len(found.candidates) <= 2 * 2 * len(WINDOWS) * n3
    assert [c.image_id for c in found.candidates] == sorted({c.image_id for c in found.candidates})
