"""Duels of two models: who they were, and the images that were drawn for them."""

from typing import Any

from sqlalchemy import Row, select

from mad_backend.core.duel import Duel, DuelImage, Duellist
from mad_backend.store.database import Database
from mad_backend.store.tables import duels


class DuelTable:
    """A duel, once recorded, is never changed: its images were drawn for two models as they were then."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def record(self, duel: Duel) -> None:
        """Does nothing if these two models have a duel already, in this order."""
        row = {
            "first_key": duel.first.key,
            "second_key": duel.second.key,
            "first": duel.first.name,
            "second": duel.second.name,
            "budget": duel.budget,
            "seed": duel.seed,
            "images": [[image.image_id, image.discrepancy] for image in duel.images],
            "created_at": duel.created_at,
        }
        with self._db.transaction() as connection:
            self._db.insert_missing(connection, duels, [row])

    def all(self) -> list[Duel]:
        """Oldest first."""
        query = select(duels).order_by(duels.c.created_at, duels.c.first_key, duels.c.second_key)
        with self._db.reading() as connection:
            return [_duel(row) for row in connection.execute(query)]

    def of(self, one: str, other: str) -> Duel | None:
        """The duel of two models by the keys of their label maps, whichever is its first."""
        return next((d for d in self.all() if {d.first.key, d.second.key} == {one, other}), None)

    def images(self) -> set[str]:
        """Of all duels: labelled to compare models, never to be trained on."""
        return {image.image_id for duel in self.all() for image in duel.images}


def _duel(row: Row[Any]) -> Duel:
    return Duel(
        Duellist(row.first, row.first_key),
        Duellist(row.second, row.second_key),
        row.budget,
        row.seed,
        tuple(DuelImage(image_id, discrepancy) for image_id, discrepancy in row.images),
        row.created_at,
    )
