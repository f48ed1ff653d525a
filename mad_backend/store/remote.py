"""What lies in Label Studio for a round, and what people answered there."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

from sqlalchemy import delete, insert, select

from mad_backend.core.records import HumanMask, ProjectRole, Rating, RemoteProject
from mad_backend.store.database import Database
from mad_backend.store.tables import facts, masks, ratings, remote_projects, remote_tasks


class RemoteTable:
    """Projects, tasks, ratings and masks by round; every write may be repeated."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._secret = self._load_secret()

    def item_key(self, number: int, role: ProjectRole, image_id: str, seat: str = "") -> str:
        """Opaque name of one task, 24 hex digits: the same for the same (round, role, image, seat), telling nothing."""
        text = "\n".join((str(number), role, image_id, *([seat] if seat else []))).encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:24]

    def record_project(self, number: int, project: RemoteProject) -> None:
        row = {
            "round_number": number,
            "role": project.role,
            "project_id": project.project_id,
            "title": project.title,
            "signature": project.signature,
            "seat": project.seat,
        }
        with self._db.transaction() as connection:
            self._db.upsert(connection, remote_projects, ["round_number", "role", "seat"], [row])

    def project(self, number: int, role: ProjectRole, seat: str = "") -> RemoteProject | None:
        return next((p for p in self.projects(number, role) if p.seat == seat), None)

    def projects(self, number: int, role: ProjectRole) -> list[RemoteProject]:
        """One, or one a seat, by seat."""
        query = select(remote_projects).where(
            remote_projects.c.round_number == number, remote_projects.c.role == role
        )
        with self._db.transaction() as connection:
            rows = connection.execute(query.order_by(remote_projects.c.seat)).all()
        return [RemoteProject(ProjectRole(r.role), r.project_id, r.title, r.signature, r.seat) for r in rows]

    def record_tasks(
        self, number: int, role: ProjectRole, task_ids: Mapping[str, int], seat: str = ""
    ) -> None:
        """Image id -> task id of what the server has; tasks not named are forgotten (a person deleted them)."""
        rows = [
            {
                "round_number": number,
                "role": role,
                "image_id": image_id,
                "item": self.item_key(number, role, image_id, seat),
                "task_id": task_id,
                "seat": seat,
            }
            for image_id, task_id in task_ids.items()
        ]
        gone = (
            (remote_tasks.c.round_number == number)
            & (remote_tasks.c.role == role)
            & (remote_tasks.c.seat == seat)
        )
        with self._db.transaction() as connection:
            connection.execute(delete(remote_tasks).where(gone))
            if rows:
                connection.execute(insert(remote_tasks), rows)

    def tasks(self, number: int, role: ProjectRole, seat: str = "") -> dict[str, int]:
        """Image id -> task id."""
        query = select(remote_tasks).where(
            remote_tasks.c.round_number == number, remote_tasks.c.role == role, remote_tasks.c.seat == seat
        )
        with self._db.transaction() as connection:
            return {row.image_id: row.task_id for row in connection.execute(query)}

    def image_of_item(self, item: str) -> str | None:
        """Pool image behind an opaque item key that was pushed, or None."""
        with self._db.transaction() as connection:
            return connection.execute(
                select(remote_tasks.c.image_id).where(remote_tasks.c.item == item)
            ).scalar()

    def record_ratings(self, number: int, found: Sequence[Rating]) -> None:
        """All ratings of the round as they now stand; those that people deleted disappear here too."""
        rows = [
            {
                "round_number": number,
                "image_id": r.image_id,
                "rater": r.rater,
                "score": r.score,
                "annotation_id": r.annotation_id,
                "created_at": r.created_at,
                "lead_time_s": r.lead_time_s,
            }
            for r in found
        ]
        with self._db.transaction() as connection:
            connection.execute(delete(ratings).where(ratings.c.round_number == number))
            if rows:
                connection.execute(insert(ratings), rows)

    def ratings(self, number: int) -> list[Rating]:
        query = select(ratings).where(ratings.c.round_number == number)
        with self._db.transaction() as connection:
            rows = connection.execute(query.order_by(ratings.c.image_id, ratings.c.rater)).all()
        return [
            Rating(r.image_id, r.rater, r.score, r.annotation_id, r.created_at, r.lead_time_s) for r in rows
        ]

    def record_mask(self, number: int, mask: HumanMask) -> None:
        row = {
            "round_number": number,
            "image_id": mask.image_id,
            "path": mask.path,
            "sha256": mask.sha256,
            "annotator": mask.annotator,
            "annotation_id": mask.annotation_id,
            "notes": list(mask.notes),
            "annotator_id": mask.annotator_id,
            "drawn_at": mask.drawn_at,
        }
        with self._db.transaction() as connection:
            self._db.upsert(connection, masks, ["round_number", "image_id"], [row])

    def masks(self, number: int) -> dict[str, HumanMask]:
        """Image id -> pulled label map, of S and T alike."""
        with self._db.transaction() as connection:
            rows = connection.execute(select(masks).where(masks.c.round_number == number)).all()
        return {
            r.image_id: HumanMask(
                r.image_id,
                r.path,
                r.sha256,
                r.annotator,
                r.annotation_id,
                tuple(r.notes),
                r.annotator_id,
                r.drawn_at,
            )
            for r in rows
        }

    def want_pull(self) -> None:
        """Leaves word that something changed in Label Studio; the next tick pulls at once."""
        with self._db.transaction() as connection:
            self._db.upsert(
                connection, facts, ["name"], [{"name": "pull_wanted", "value": secrets.token_hex(4)}]
            )

    def take_pull_wish(self) -> bool:
        """True once after each `want_pull` (several in between count as one)."""
        with self._db.transaction() as connection:
            return connection.execute(delete(facts).where(facts.c.name == "pull_wanted")).rowcount == 1

    def _load_secret(self) -> bytes:
        with self._db.transaction() as connection:
            fresh = {"name": "item_secret", "value": secrets.token_hex(32)}
            self._db.insert_missing(connection, facts, [fresh])
            kept = connection.execute(select(facts.c.value).where(facts.c.name == "item_secret")).scalar_one()
        return bytes.fromhex(kept)
