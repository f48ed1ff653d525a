"""Whose answers count, by hand."""

from datetime import UTC, datetime, timedelta

from mad_backend.core.panels import counted, objection, seat_holders
from mad_backend.core.records import Answer, AnswerKind, Departure

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def given(rater: str, minute: int, score: int | None = 3, *, image_id: str = "img", seat: str = "") -> Answer:
    kind = AnswerKind.VETO if score is None else AnswerKind.RATING
    return Answer(image_id, 1, minute, rater, kind, NOON + timedelta(minutes=minute), score, seat=seat)


def who(answers: list[Answer], *left: Departure, wanted: int = 3) -> list[tuple[str, int | None]]:
    return [(r.rater, r.score) for r in counted(answers, left, wanted)]


def test_the_first_people_by_time_count_with_their_latest_answer_and_vetoes_always() -> None:
    answers = [given("d", 4, 5), given("b", 2), given("a", 1, 1), given("a", 9, 4), given("e", 5, None)]
    assert who(answers, wanted=2) == [("a", 4), ("b", 3), ("e", None)]


def test_a_veto_that_was_taken_back_does_not_count() -> None:
    assert who([given("a", 1, None), given("a", 2, 4)]) == [("a", 4)]


def test_skips_and_answers_that_cannot_be_read_do_not_count() -> None:
    odd = [Answer("img", 1, n, "a", kind, NOON) for n, kind in enumerate(AnswerKind) if n > 1]
    assert who([*odd, given("b", 1)]) == [("b", 3)]


def test_of_somebody_who_left_only_what_came_before_counts_and_nothing_if_discarded() -> None:
    answers = [given("a", 1, 1), given("a", 30, 5, image_id="later"), given("b", 2)]
    kept = Departure("a", "e", discarded=False, at=NOON + timedelta(minutes=10))
    assert who(answers, kept) == [("a", 1), ("b", 3)]
    dropped = Departure("a", "e", discarded=True, at=NOON + timedelta(minutes=10))
    assert who(answers, dropped) == [("b", 3)]
    assert objection(answers[1], {"a": kept}) == "a had left before"


def test_a_seat_gives_one_rating_of_whom_it_belongs_to_or_belonged_to() -> None:
    answers = [
        given("a", 1, 1, seat="a"),
        given("b", 2, 2, seat="a"),
        given("b", 3, 3, seat="b"),
        given("e", 40, 4, seat="a"),
        given("e", 41, 5, image_id="other", seat="a"),
    ]
    gone = Departure("a", "e", discarded=False, at=NOON + timedelta(minutes=10))
    assert who(answers, gone) == [("a", 1), ("b", 3), ("e", 5)]
    assert objection(answers[1], {"a": gone}) == "the project is that of e"


def test_seats_go_from_hand_to_hand_and_never_in_a_circle() -> None:
    left = {
        "a": Departure("a", "b", discarded=False, at=NOON),
        "b": Departure("b", "c", discarded=False, at=NOON),
        "c": Departure("c", "a", discarded=False, at=NOON),
    }
    assert seat_holders("a", left) == ["a", "b", "c"]
    assert seat_holders("d", left) == ["d"]
