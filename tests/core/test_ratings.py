"""MOS, vetoes and the cut that gives S."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mad_backend.core.ratings import Cut, Opinion, cut, is_rated, opinions, vetoed_by
from mad_backend.core.records import Candidate, Failure, Provenance, Rating, Role

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def rating(image_id: str, rater: str, score: int | None, minute: int = 0) -> Rating:
    return Rating(image_id, rater, score, 1, NOON + timedelta(minutes=minute))


def candidate(image_id: str, d: float = 0.5) -> Candidate:
    return Candidate(image_id, (Provenance("g", 1, Role.TARGET, 1, d),))


def scores(**mos: float | None) -> dict[str, Opinion]:
    return {image_id: Opinion(image_id, value, 3) for image_id, value in mos.items()}


def chosen(found: Cut) -> list[str]:
    return [f.image_id for f in found.failures]


def test_mos_is_the_mean_over_raters() -> None:
    found = opinions([rating("a", "x", 1), rating("a", "y", 2), rating("a", "z", 2), rating("b", "x", 5)])
    assert found == {"a": Opinion("a", 5 / 3, 3), "b": Opinion("b", 5.0, 1)}


def test_one_veto_takes_the_image_out_whatever_the_others_say() -> None:
    assert opinions([rating("a", "x", 1), rating("a", "y", None)])["a"].mos is None


def test_a_veto_is_put_down_to_the_first_rater_by_time() -> None:
    given_ratings = [rating("a", "late", None, 9), rating("a", "first", None, 1), rating("b", "x", 3)]
    assert vetoed_by(given_ratings) == {"a": "first"}


def test_an_image_is_rated_with_enough_scores_or_one_veto() -> None:
    assert not is_rated([rating("a", "x", 1), rating("a", "y", 1)], wanted=3)
    assert is_rated([rating("a", r, 1) for r in "xyz"], wanted=3)
    assert is_rated([rating("a", "x", None)], wanted=3)


def test_s_holds_the_lowest_mos_first() -> None:
    found = cut([candidate(i) for i in "abc"], scores(a=3.0, b=1.0, c=2.0), {}, 2)
    assert found == Cut((Failure("b", 1.0), Failure("c", 2.0)), 0, 0)


def test_vetoed_unrated_and_barred_images_are_not_in_s() -> None:
    found = cut([candidate(i) for i in "abcd"], scores(a=None, b=1.0, d=1.5), {}, 4, barred=["b"])
    assert chosen(found) == ["d"]


def test_ties_go_to_the_larger_discrepancy() -> None:
    found = cut([candidate("a", 0.1), candidate("b", 0.9)], scores(a=2.0, b=2.0), {}, 1)
    assert chosen(found) == ["b"]


def test_then_to_the_class_least_represented_so_far() -> None:
    main = {"a": 1, "b": 1, "c": 2}
    assert chosen(cut([candidate(i) for i in "abc"], scores(a=2.0, b=2.0, c=2.0), main, 2)) == ["a", "c"]


def test_then_to_the_image_id() -> None:
    assert chosen(cut([candidate(i) for i in "cba"], scores(a=2.0, b=2.0, c=2.0), {}, 2)) == ["a", "b"]


def test_the_tied_group_at_the_cut_is_counted() -> None:
    found = cut([candidate(i) for i in "abcd"], scores(a=1.0, b=2.0, c=2.0, d=2.0), {}, 2)
    assert (found.tied, found.tied_in) == (3, 1)


def test_a_cut_between_two_values_has_no_tie() -> None:
    found = cut([candidate(i) for i in "abc"], scores(a=1.0, b=1.0, c=2.0), {}, 2)
    assert (found.tied, found.tied_in) == (0, 0)


def test_taking_everything_splits_no_tie() -> None:
    assert cut([candidate(i) for i in "ab"], scores(a=1.0, b=1.0), {}, 9).tied == 0


def test_the_ceiling_is_inclusive_and_may_leave_s_short() -> None:
    found = cut([candidate(i) for i in "abc"], scores(a=2.9, b=3.0, c=3.1), {}, 9, mos_ceiling=3.0)
    assert chosen(found) == ["a", "b"]


def test_an_empty_m_gives_an_empty_s() -> None:
    assert cut([], {}, {}, 5) == Cut((), 0, 0)


IMAGES = st.dictionaries(
    st.integers(0, 30).map(str),
    st.tuples(st.integers(3, 15).map(lambda n: n / 3), st.sampled_from([0.2, 0.5]), st.integers(1, 3)),
    max_size=15,
)


@given(IMAGES, st.integers(0, 8), st.randoms(use_true_random=False))
def test_no_image_outside_s_has_a_lower_mos_and_order_does_not_matter(images, n4, random) -> None:  # noqa: ANN001
    candidates = [candidate(i, d) for i, (_, d, _) in images.items()]
    given_scores = {i: Opinion(i, mos, 3) for i, (mos, _, _) in images.items()}
    main = {i: k for i, (_, _, k) in images.items()}
    found = cut(candidates, given_scores, main, n4)
    random.shuffle(candidates)
    assert cut(candidates, given_scores, main, n4) == found
    values = [f.mos for f in found.failures]
    left = [mos for i, (mos, _, _) in images.items() if i not in chosen(found)]
    assert values == sorted(values)
    assert len(values) == min(n4, len(images))
    assert not values or not left or max(values) <= min(left)
    assert found.tied_in <= found.tied
