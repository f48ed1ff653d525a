"""Versions of the target model, which of them is promoted, and how every model was measured."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select

from mad_backend.core.records import ModelVersion
from mad_backend.errors import StoreError
from mad_backend.store.database import Database
from mad_backend.store.tables import evaluations, model_versions, promotions


@dataclass(frozen=True)
class EvaluationRow:
    """Where the confusion matrices of one model on one image set ("T(0)", "T(1)", "S(1)") lie.

    `model_key` stands for weights and settings (`SegmentationModel.key`), `images_digest` for images and label maps:
    numbers of another key or digest are of something else.
    """

    model: str
    model_key: str
    image_set: str
    images_digest: str
    images: int
    path: str
    sha256: str


class VersionTable:
    """f(0), f(1), ... and the history of promotions; the newest promotion is what is served."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def record(self, version: str, round_number: int, path: str | None, now: datetime) -> None:
        """Adds f(round_number); does nothing if that version is there already."""
        row = {"version": version, "round_number": round_number, "path": path, "created_at": now}
        with self._db.transaction() as connection:
            self._db.insert_missing(connection, model_versions, [row])

    def all(self) -> list[ModelVersion]:
        """Oldest first; `promoted_at` is the last time a version was promoted."""
        with self._db.reading() as connection:
            rows = connection.execute(select(model_versions).order_by(model_versions.c.round_number)).all()
            last = {
                p.version: p.promoted_at
                for p in connection.execute(select(promotions).order_by(promotions.c.id))
            }
        return [
            ModelVersion(r.version, r.round_number, r.path, r.created_at, last.get(r.version)) for r in rows
        ]

    def get(self, version: str) -> ModelVersion:
        """Raises StoreError naming the known versions."""
        known = {v.version: v for v in self.all()}
        if version not in known:
            raise StoreError(f'there is no model version "{version}"; known: {", ".join(known) or "none"}')
        return known[version]

    def promoted(self) -> ModelVersion | None:
        """The version to serve, or None before the first round."""
        with self._db.reading() as connection:
            query = select(promotions.c.version).order_by(promotions.c.id.desc()).limit(1)
            version = connection.execute(query).scalar()
        return self.get(version) if version else None

    def served_before(self) -> ModelVersion | None:
        """Of the versions of earlier rounds than the present one, the latest that was ever served, if any was."""
        served = self.promoted()
        if served is None:
            return None
        earlier = [v for v in self.all() if v.promoted_at and v.round_number < served.round_number]
        return earlier[-1] if earlier else None

    def promote(self, version: str, now: datetime, reason: str) -> None:
        """Makes `version` the served one, with why; a repeated call for the served version adds nothing."""
        self.get(version)
        served = self.promoted()
        if served and served.version == version:
            return
        with self._db.transaction() as connection:
            row = {"version": version, "promoted_at": now, "reason": reason}
            connection.execute(insert(promotions).values(row))

    def record_evaluation(self, row: EvaluationRow) -> None:
        with self._db.transaction() as connection:
            self._db.upsert(connection, evaluations, ["model_key", "image_set", "images_digest"], [vars(row)])

    def evaluations(self) -> list[EvaluationRow]:
        """Every one there is, of models and label maps of earlier days too."""
        query = select(evaluations).order_by(
            evaluations.c.image_set, evaluations.c.model, evaluations.c.model_key, evaluations.c.images_digest
        )
        with self._db.reading() as connection:
            return [EvaluationRow(**row._mapping) for row in connection.execute(query)]
