"""T, drawn from M without looking at scores, and the main foreground object."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.core.labels import VOID, LabelClass, LabelSet
from mad_backend.core.records import Candidate, Provenance, Role
from mad_backend.core.testset import MAX_PER_MAIN_CLASS, draw_test_set, main_foreground, majority, surplus

LABELS = LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat", "dog")))
STREET = LabelSet("street", LABELS.classes, has_background=False)


def candidate(image_id: str, *cells: tuple[str, Role]) -> Candidate:
    return Candidate(image_id, tuple(Provenance(g, 1, role, 1, 0.5) for g, role in cells))


def pool(n: int) -> list[Candidate]:
    return [candidate(f"{i:03d}", ("g", Role.TARGET)) for i in range(n)]


def different(candidates: list[Candidate]) -> dict[str, int]:
    return {c.image_id: n for n, c in enumerate(candidates)}


def test_the_main_object_is_the_largest_foreground_class() -> None:
    assert main_foreground(np.array([[0, 0, 0], [1, 2, 2]], np.uint8), LABELS) == 2


def test_the_smallest_id_wins_a_tie_and_void_never_counts() -> None:
    assert main_foreground(np.array([[2, 1, VOID, VOID]], np.uint8), LABELS) == 1


def test_an_image_of_nothing_but_background_has_main_class_0() -> None:
    assert main_foreground(np.zeros((2, 2), np.uint8), LABELS) == 0


def test_without_a_background_class_0_can_be_the_main_object() -> None:
    assert main_foreground(np.array([[0, 0, 1]], np.uint8), STREET) == 0


def test_the_majority_of_models_decides_and_the_smallest_id_breaks_a_tie() -> None:
    assert majority([2, 1, 2]) == 2
    assert majority([2, 1]) == 1


def test_at_most_four_images_share_a_main_object() -> None:
    drawn = draw_test_set(pool(20), {c.image_id: 1 for c in pool(20)}, 10, seed=1)
    assert len(drawn) == MAX_PER_MAIN_CLASS == 4


def test_vetoed_images_are_never_drawn() -> None:
    candidates = pool(6)
    drawn = draw_test_set(candidates, different(candidates), 6, seed=1, vetoed=["000", "003"])
    assert sorted(drawn) == ["001", "002", "004", "005"]


def test_images_that_were_learnt_by_another_name_are_never_drawn_and_leave_their_place_to_others() -> None:
    candidates = pool(6)
    drawn = draw_test_set(candidates, different(candidates), 4, seed=1, vetoed=["000"], refused=["003"])
    assert sorted(drawn) == ["001", "002", "004", "005"]


def test_a_smaller_t_is_the_beginning_of_a_larger_one() -> None:
    candidates = pool(40)
    largest = draw_test_set(candidates, different(candidates), 20, seed=1)
    smaller = [draw_test_set(candidates, different(candidates), n, seed=1) for n in (5, 12)]
    assert smaller == [largest[:5], largest[:12]]


def test_the_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    candidates = pool(60)
    main = different(candidates)
    assert draw_test_set(candidates, main, 9, seed=5) == draw_test_set(candidates[::-1], main, 9, seed=5)
    assert draw_test_set(candidates, main, 9, seed=5) != draw_test_set(candidates, main, 9, seed=6)


def test_a_small_stratum_is_drawn_from_as_often_as_a_large_one() -> None:
    many = [candidate(f"many{i:03d}", ("g", Role.TARGET)) for i in range(95)]
    few = [candidate(f"few{i}", ("h", Role.COMPETITOR)) for i in range(5)]
    main = different(many + few)
    first = Counter(draw_test_set(many + few, main, 1, seed=s)[0][:3] for s in range(400))
    assert 150 < first["few"] < 250  # binomial(400, 1/2) is outside with p < 1e-6


def test_within_a_stratum_every_image_is_as_likely() -> None:
    candidates = pool(5)
    main = different(candidates)
    counts = Counter(draw_test_set(candidates, main, 1, seed=s)[0] for s in range(1000))
    assert len(counts) == 5
    assert all(140 < n < 260 for n in counts.values())  # binomial(1000, 1/5): 5 sigma are 63


def test_an_empty_m_gives_an_empty_t() -> None:
    assert draw_test_set([], {}, 30, seed=0) == []


def test_surplus_drops_the_last_drawn_of_a_crowded_class() -> None:
    assert surplus(["a", "b", "c", "d"], {"a": 1, "b": 1, "c": 2, "d": 1}, per_class=2) == ["d"]


@given(
    st.dictionaries(
        st.integers(0, 40).map(str),
        st.tuples(st.integers(1, 3), st.sets(st.sampled_from(["g", "h"]), min_size=1), st.sampled_from(Role)),
        max_size=25,
    ),
    st.integers(0, 12),
    st.integers(0, 99),
)
def test_t_has_no_image_twice_keeps_its_caps_and_is_short_only_when_it_must(
    images: dict[str, tuple[int, set[str], Role]], size: int, seed: int
) -> None:
    candidates = [candidate(i, *((g, role) for g in names)) for i, (_, names, role) in images.items()]
    main = {i: k for i, (k, _, _) in images.items()}
    drawn = draw_test_set(candidates, main, size, seed, per_class=2)
    used = Counter(main[i] for i in drawn)
    assert len(drawn) == len(set(drawn))
    assert all(n <= 2 for n in used.values())
    most = sum(min(2, n) for n in Counter(main.values()).values())
    assert len(drawn) == min(size, most)
