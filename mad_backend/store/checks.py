"""What became of every label map in the cross-check."""

from typing import Any

from sqlalchemy import Connection, RowMapping, delete, select

from mad_backend.core.records import Check, ErrorType, Verdict
from mad_backend.store.database import Database
from mad_backend.store.tables import checks


class CheckTable:
    """One row per version of a drawn label map, by round; every write may be repeated."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def all(self, number: int) -> list[Check]:
        """By image id, older versions of its label map first."""
        query = select(checks).where(checks.c.round_number == number)
        with self._db.transaction() as connection:
            rows = connection.execute(query.order_by(checks.c.image_id, checks.c.decided_at)).all()
        return [_check(row._mapping) for row in rows]

    def record(self, number: int, check: Check) -> bool:
        """What a checker said; False, and nothing changes, where ops have settled it."""
        with self._db.transaction() as connection:
            if self._is_settled(connection, number, check.image_id, check.mask_sha256):
                return False
            self._write(connection, number, check)
        return True

    def forget(self, number: int, image_id: str, mask_sha256: str) -> None:
        """The answer is gone from the server; what ops have settled stays."""
        with self._db.transaction() as connection:
            if not self._is_settled(connection, number, image_id, mask_sha256):
                connection.execute(delete(checks).where(_is(number, image_id, mask_sha256)))

    def settle(self, number: int, check: Check) -> None:
        """What ops decided; a drop of the same image, decided before, ends."""
        dropped = (
            (checks.c.round_number == number)
            & (checks.c.image_id == check.image_id)
            & (checks.c.verdict == Verdict.DROPPED)
        )
        with self._db.transaction() as connection:
            connection.execute(delete(checks).where(dropped))
            self._write(connection, number, check)

    def _is_settled(self, connection: Connection, number: int, image_id: str, mask_sha256: str) -> bool:
        # Locked (Postgres; SQLite locks the whole database), so that a settlement in between is not overwritten.
        query = select(checks.c.verdict).where(_is(number, image_id, mask_sha256)).with_for_update()
        verdict = connection.execute(query).scalar()
        return verdict is not None and Verdict(verdict).is_settled

    def _write(self, connection: Connection, number: int, check: Check) -> None:
        row = {
            "round_number": number,
            "image_id": check.image_id,
            "mask_sha256": check.mask_sha256,
            "verdict": check.verdict,
            "errors": list(check.errors),
            "checker": check.checker,
            "annotation_id": check.annotation_id,
            "changed_share": check.changed_share,
            "path": check.path,
            "sha256": check.sha256,
            "notes": list(check.notes),
            "decided_at": check.decided_at,
            "lead_time_s": check.lead_time_s,
        }
        self._db.upsert(connection, checks, ["round_number", "image_id", "mask_sha256"], [row])


def _is(number: int, image_id: str, mask_sha256: str) -> Any:
    return (
        (checks.c.round_number == number)
        & (checks.c.image_id == image_id)
        & (checks.c.mask_sha256 == mask_sha256)
    )


def _check(row: RowMapping) -> Check:
    return Check(
        image_id=row["image_id"],
        mask_sha256=row["mask_sha256"],
        verdict=Verdict(row["verdict"]),
        checker=row["checker"],
        decided_at=row["decided_at"],
        errors=tuple(ErrorType(name) for name in row["errors"]),
        annotation_id=row["annotation_id"],
        changed_share=row["changed_share"],
        path=row["path"],
        sha256=row["sha256"],
        notes=tuple(row["notes"]),
        lead_time_s=row["lead_time_s"],
    )
