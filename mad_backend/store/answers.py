"""What raters answered, answer by answer, and who of them left; `ratings` in remote.py is what counts of it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, insert, select

from mad_backend.core.records import Answer, AnswerKind, Departure
from mad_backend.store.database import Database
from mad_backend.store.tables import answers, departures


class AnswerTable:
    """Answers and departures by round; every write may be repeated."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def replace(self, number: int, by_task: Mapping[int, Sequence[Answer]]) -> None:
        """Task id -> every answer it has now; those that people deleted disappear here too."""
        rows = [_row(number, answer) for found in by_task.values() for answer in found]
        with self._db.transaction() as connection:
            for task_ids in _portions(by_task):
                old = (answers.c.round_number == number) & answers.c.task_id.in_(task_ids)
                connection.execute(delete(answers).where(old))
            if rows:
                connection.execute(insert(answers), rows)

    def all(self, number: int) -> list[Answer]:
        """By time, of equal times by annotation."""
        query = select(answers).where(answers.c.round_number == number)
        with self._db.transaction() as connection:
            rows = connection.execute(query.order_by(answers.c.created_at, answers.c.annotation_id)).all()
        return [
            Answer(
                image_id=r.image_id,
                task_id=r.task_id,
                annotation_id=r.annotation_id,
                rater=r.rater,
                kind=AnswerKind(r.kind),
                created_at=r.created_at,
                score=r.score,
                lead_time_s=r.lead_time_s,
                seat=r.seat,
            )
            for r in rows
        ]

    def record_departure(self, number: int, departure: Departure) -> None:
        """A rater leaves a round once; a repeat replaces what was said of it."""
        row = {
            "round_number": number,
            "rater": departure.rater,
            "replaced_by": departure.replaced_by,
            "discarded": departure.discarded,
            "at": departure.at,
        }
        with self._db.transaction() as connection:
            self._db.upsert(connection, departures, ["round_number", "rater"], [row])

    def departures(self, number: int) -> list[Departure]:
        """Who left the round, the first one first."""
        query = select(departures).where(departures.c.round_number == number)
        with self._db.transaction() as connection:
            rows = connection.execute(query.order_by(departures.c.at, departures.c.rater)).all()
        return [Departure(r.rater, r.replaced_by, r.discarded, r.at) for r in rows]


def _row(number: int, answer: Answer) -> dict[str, str | int | float | datetime | None]:
    return {
        "round_number": number,
        "seat": answer.seat,
        "image_id": answer.image_id,
        "task_id": answer.task_id,
        "annotation_id": answer.annotation_id,
        "rater": answer.rater,
        "kind": answer.kind,
        "score": answer.score,
        "created_at": answer.created_at,
        "lead_time_s": answer.lead_time_s,
    }


def _portions(task_ids: Collection[int], size: int = 500) -> list[list[int]]:
    """Few enough for the parameters of one statement."""
    found = list(task_ids)
    return [found[start : start + size] for start in range(0, len(found), size)]
