"""M, S and T of every round, and which images may not come back."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, select

from mad_backend.core.records import Candidate, Failure, Part, Provenance, Role, Veto
from mad_backend.store.database import Database
from mad_backend.store.tables import chosen, duels, rounds, selected, unreadable_images, vetoes


class ChoiceTable:
    """What the competition and the raters chose. A cut, once recorded, is never changed."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def record_unreadable(self, reasons: dict[str, str]) -> None:
        """Images of the pool that cannot be opened, with why."""
        rows = [{"image_id": i, "reason": r} for i, r in reasons.items()]
        with self._db.transaction() as connection:
            self._db.upsert(connection, unreadable_images, ["image_id"], rows)

    def unreadable(self) -> dict[str, str]:
        with self._db.transaction() as connection:
            query = select(unreadable_images).order_by(unreadable_images.c.image_id)
            return {row.image_id: row.reason for row in connection.execute(query)}

    def record_selection(self, number: int, candidates: Sequence[Candidate]) -> None:
        """M of the round with its provenance; replaces what an interrupted run had written."""
        rows = [
            {
                "round_number": number,
                "image_id": candidate.image_id,
                "competitor": p.competitor,
                "class_id": p.class_id,
                "role": p.role,
                "rank": p.rank,
                "discrepancy": p.discrepancy,
            }
            for candidate in candidates
            for p in candidate.provenance
        ]
        with self._db.transaction() as connection:
            connection.execute(delete(selected).where(selected.c.round_number == number))
            if rows:
                connection.execute(insert(selected), rows)

    def selection(self, number: int) -> list[Candidate]:
        """M, by image id."""
        query = select(selected).where(selected.c.round_number == number)
        cells: dict[str, list[Provenance]] = {}
        with self._db.transaction() as connection:
            for row in connection.execute(query):
                cell = Provenance(row.competitor, row.class_id, Role(row.role), row.rank, row.discrepancy)
                cells.setdefault(row.image_id, []).append(cell)
        return [Candidate(image_id, tuple(sorted(found))) for image_id, found in sorted(cells.items())]

    def record_cut(
        self, number: int, failures: Sequence[Failure], test_set: Sequence[str], vetoed_by: dict[str, str]
    ) -> None:
        """S (lowest MOS first), T (in the order drawn) and the vetoes (image id -> rater), all or nothing."""
        rows = [
            {
                "round_number": number,
                "image_id": f.image_id,
                "part": Part.FAILURES,
                "position": n,
                "mos": f.mos,
            }
            for n, f in enumerate(failures)
        ] + [
            {"round_number": number, "image_id": image_id, "part": Part.TEST_SET, "position": n, "mos": None}
            for n, image_id in enumerate(test_set)
        ]
        veto_rows = [
            {"image_id": i, "round_number": number, "rater": rater, "lifted": False}
            for i, rater in vetoed_by.items()
        ]
        with self._db.transaction() as connection:
            # Of two processes that cut at once, the second waits here (Postgres; SQLite locks the whole database).
            connection.execute(
                select(rounds.c.number).where(rounds.c.number == number).with_for_update()
            ).first()
            if connection.execute(select(chosen).where(chosen.c.round_number == number)).first():
                return
            if rows:
                connection.execute(insert(chosen), rows)
            # Only one that was lifted can be vetoed again, and then counts again.
            self._db.upsert(connection, vetoes, ["image_id"], veto_rows)

    def failures(self, number: int) -> list[Failure]:
        """S of the round, lowest MOS first."""
        return [Failure(row.image_id, row.mos) for row in self._chosen(number, Part.FAILURES)]

    def test_set(self, number: int) -> list[str]:
        """T of the round, in the order drawn."""
        return [row.image_id for row in self._chosen(number, Part.TEST_SET)]

    def vetoed(self) -> set[str]:
        """Images a rater called out-of-domain, unless an admin lifted the veto."""
        with self._db.transaction() as connection:
            return set(connection.scalars(select(vetoes.c.image_id).where(~vetoes.c.lifted)))

    def vetoes(self) -> list[Veto]:
        """Lifted ones too, by round and image id."""
        query = select(vetoes).order_by(vetoes.c.round_number, vetoes.c.image_id)
        with self._db.transaction() as connection:
            return [
                Veto(row.image_id, row.round_number, row.rater, row.lifted)
                for row in connection.execute(query)
            ]

    def lift_veto(self, image_id: str) -> bool:
        """Lets an image back into later pools; False if nobody had vetoed it."""
        with self._db.transaction() as connection:
            lifted = vetoes.update().where(vetoes.c.image_id == image_id).values(lifted=True)
            return connection.execute(lifted).rowcount == 1

    def spent(self) -> set[str]:
        """Every image of any S, T or duel, or vetoed: not in later pools."""
        vetoed = self.vetoed()
        with self._db.transaction() as connection:
            duelled = {
                image_id for images in connection.scalars(select(duels.c.images)) for image_id, _ in images
            }
            return vetoed | duelled | set(connection.scalars(select(chosen.c.image_id)))

    def _chosen(self, number: int, part: Part) -> Sequence[Row[Any]]:
        query = select(chosen).where(chosen.c.round_number == number, chosen.c.part == part)
        with self._db.transaction() as connection:
            return connection.execute(query.order_by(chosen.c.position)).all()
