"""Answers as they are kept, task by task, and departures."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mad_backend.core.records import Answer, AnswerKind, Departure
from mad_backend.store.store import Store

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/mad.sqlite3"
    store = Store(url if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    store.rounds.create(1, 7, NOON)
    yield store
    store.close()


def given(task: int, annotation: int, kind: AnswerKind = AnswerKind.RATING, seat: str = "") -> Answer:
    score = 3 if kind is AnswerKind.RATING else None
    at = NOON + timedelta(seconds=annotation)
    return Answer(f"img-{task}", task, annotation, "ann", kind, at, score, 1.5, seat)


def test_answers_are_replaced_task_by_task(opened: Store) -> None:
    first = [given(1, 11), given(1, 12, AnswerKind.SKIPPED)]
    other = [given(2, 13, AnswerKind.VETO, "ann@example.com")]
    opened.answers.replace(1, {1: first, 2: other})
    assert opened.answers.all(1) == [*first, *other]
    opened.answers.replace(1, {1: [given(1, 12, AnswerKind.UNREADABLE)]})
    assert opened.answers.all(1) == [given(1, 12, AnswerKind.UNREADABLE), *other]
    opened.answers.replace(1, {2: ()})
    opened.answers.replace(1, {})
    assert [a.task_id for a in opened.answers.all(1)] == [1]


def test_thousands_of_tasks_are_replaced_at_once(opened: Store) -> None:
    everything = {task: [given(task, task)] for task in range(1500)}
    for _ in range(2):
        opened.answers.replace(1, everything)
    assert len(opened.answers.all(1)) == 1500


def test_a_departure_may_be_said_again_and_otherwise(opened: Store) -> None:
    ann = Departure("ann", "eva", discarded=False, at=NOON)
    bob = Departure("bob", None, discarded=True, at=NOON - timedelta(days=1))
    for departure in (ann, bob, ann):
        opened.answers.record_departure(1, departure)
    assert opened.answers.departures(1) == [bob, ann]
    otherwise = Departure("ann", "eva", discarded=True, at=NOON)
    opened.answers.record_departure(1, otherwise)
    assert opened.answers.departures(1) == [bob, otherwise]
