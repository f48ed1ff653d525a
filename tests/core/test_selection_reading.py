"""M, Eq. (2), against a slow and plain reading of the equation, and as properties."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from mad_backend.core.records import Role
from mad_backend.core.selection import (
    Selection,
    Window,
    select,
)
from tests.core.few_scores import Score, batches

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
