"""Rounds in the database: claimed by lease, advanced by one conditional UPDATE."""

from datetime import datetime, timedelta

from sqlalchemy import Row, func, or_, select, update

from mad_backend.core.rounds import Round, RoundState, check_transition
from mad_backend.errors import StoreError
from mad_backend.store.database import Database
from mad_backend.store.tables import rounds


class RoundTable:
    """Every change is one statement that names the state it expects, so that of two workers one wins."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(self, number: int, seed: int, now: datetime, target: str | None = None) -> bool:
        """Starts round `number` with version `target`; False if it exists already (another scheduler was first)."""
        row = {
            "number": number,
            "state": RoundState.CREATED,
            "seed": seed,
            "target": target,
            "created_at": now,
            "changed_at": now,
        }
        with self._db.transaction() as connection:
            created = self._db.insert_or_ignore(rounds).values(row).returning(rounds.c.number)
            return connection.execute(created).first() is not None

    def all(self) -> list[Round]:
        """All rounds, oldest first."""
        with self._db.transaction() as connection:
            return [_round(row) for row in connection.execute(select(rounds).order_by(rounds.c.number))]

    def get(self, number: int) -> Round:
        """Raises StoreError if there is no such round."""
        with self._db.transaction() as connection:
            row = connection.execute(select(rounds).where(rounds.c.number == number)).first()
        if row is None:
            raise StoreError(f"there is no round {number}; `mad status` lists the rounds")
        return _round(row)

    def latest(self) -> Round | None:
        with self._db.transaction() as connection:
            row = connection.execute(select(rounds).order_by(rounds.c.number.desc()).limit(1)).first()
        return _round(row) if row else None

    def next_number(self) -> int:
        with self._db.transaction() as connection:
            return (connection.execute(select(func.max(rounds.c.number))).scalar() or 0) + 1

    def claim(self, number: int, owner: str, now: datetime, lease_s: float) -> bool:
        """Takes the round for `owner` until `now + lease_s`; False while another owner's lease runs."""
        free = or_(rounds.c.lease_until.is_(None), rounds.c.lease_until < now, rounds.c.lease_owner == owner)
        return self._update(number, free, lease_owner=owner, lease_until=now + timedelta(seconds=lease_s))

    def renew(self, number: int, owner: str, now: datetime, lease_s: float) -> bool:
        """Holds the lease longer; False if somebody else has it now, and the work must stop."""
        return self._update(
            number, rounds.c.lease_owner == owner, lease_until=now + timedelta(seconds=lease_s)
        )

    def release(self, number: int, owner: str) -> None:
        self._update(number, rounds.c.lease_owner == owner, lease_owner=None, lease_until=None)

    def report(self, number: int, note: str, done: int = 0, total: int = 0) -> None:
        """What the round is doing or waits for, with counts for a progress bar (total 0: no bar)."""
        self._update(number, note=note, done=done, total=total)

    def conclude(self, number: int, outcome: str, stop: str | None = None) -> None:
        """What promotion decided for the round, and why; `stop`: what the stop rule says, None where it is content."""
        self._update(number, outcome=outcome, stop=stop)

    def advance(
        self, number: int, before: RoundState, after: RoundState, now: datetime, error: str | None = None
    ) -> bool:
        """Moves the round; False if it was no longer in `before`. Raises TransitionError for an impossible move."""
        current = self.get(number)
        if current.state is not before:
            return False
        check_transition(before, after, current.came_from)
        leaves = after in (RoundState.FAILED, RoundState.PAUSED)
        return self._update(
            number,
            rounds.c.state == before,
            state=after,
            came_from=before if leaves else None,
            error=error,
            note="",
            done=0,
            total=0,
            changed_at=now,
        )

    def _update(self, number: int, *conditions: object, **values: object) -> bool:
        statement = update(rounds).where(rounds.c.number == number, *conditions).values(**values)  # type: ignore[arg-type]
        with self._db.transaction() as connection:
            return connection.execute(statement).rowcount == 1


def _round(row: Row[tuple[object, ...]]) -> Round:
    return Round(
        number=row.number,
        state=RoundState(row.state),
        seed=row.seed,
        target=row.target,
        came_from=RoundState(row.came_from) if row.came_from else None,
        error=row.error,
        outcome=row.outcome,
        stop=row.stop,
        note=row.note,
        done=row.done,
        total=row.total,
    )
