"""What lies in Label Studio for a round, and what people answered there."""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, bindparam, delete, insert, select, update

from mad_backend.core.records import HumanMask, ProjectRole, Rating, RemoteProject
from mad_backend.store.database import Database
from mad_backend.store.tables import chosen, facts, masks, ratings, remote_projects, remote_tasks, rounds

_KEYS_AT_ONCE: Final = 500
"""In one question; databases bound the number of its parameters."""


class RemoteTable:
    """Projects, tasks, ratings and masks by round; every write may be repeated."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._secret = self._load_secret()

    def item_key(self, number: int, role: ProjectRole, image_id: str, seat: str = "") -> str:
        """Opaque name of one task, 24 hex digits: the same for the same (round, role, image, seat), telling nothing."""
        text = "\n".join((str(number), role, image_id, *([seat] if seat else []))).encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:24]

    def sign(self, text: str) -> str:
        """32 hex digits that only processes of this store can make for `text`."""
        # Item keys begin with a round's number, so that none is ever a part of a signature.
        return hmac.new(self._secret, f"signed\n{text}".encode(), hashlib.sha256).hexdigest()[:32]

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
        mine = _tasks_of(number, role, seat)
        with self._db.transaction() as connection:
            known = connection.execute(select(remote_tasks).where(mine)).all()
            read_at = {(row.image_id, row.task_id): row.read_at for row in known}
            rows = [
                {
                    "round_number": number,
                    "role": role,
                    "image_id": image_id,
                    "item": self.item_key(number, role, image_id, seat),
                    "task_id": task_id,
                    "seat": seat,
                    "read_at": read_at.get((image_id, task_id)),
                }
                for image_id, task_id in task_ids.items()
            ]
            connection.execute(delete(remote_tasks).where(mine))
            if rows:
                connection.execute(insert(remote_tasks), rows)

    def tasks(self, number: int, role: ProjectRole, seat: str = "") -> dict[str, int]:
        """Image id -> task id."""
        query = select(remote_tasks).where(_tasks_of(number, role, seat))
        with self._db.transaction() as connection:
            return {row.image_id: row.task_id for row in connection.execute(query)}

    def read_times(self, number: int, role: ProjectRole, seat: str = "") -> dict[int, datetime]:
        """Task id -> `updated_at` it had when its answers were last read, for tasks that were."""
        query = select(remote_tasks).where(_tasks_of(number, role, seat), remote_tasks.c.read_at.is_not(None))
        with self._db.transaction() as connection:
            return {row.task_id: row.read_at for row in connection.execute(query)}

    def record_read(
        self, number: int, role: ProjectRole, times: Mapping[str, datetime | None], seat: str = ""
    ) -> None:
        """Image id -> `updated_at` of what was read of its task; None: the next pull is to read it again."""
        changed = (
            update(remote_tasks)
            .where(_tasks_of(number, role, seat), remote_tasks.c.image_id == bindparam("image"))
            .values(read_at=bindparam("time"))
        )
        with self._db.transaction() as connection:
            if times:
                connection.execute(changed, [{"image": i, "time": time} for i, time in times.items()])

    def image_of_item(self, item: str) -> str | None:
        """Pool image behind an opaque item key that was pushed, or None."""
        with self._db.transaction() as connection:
            return connection.execute(
                select(remote_tasks.c.image_id).where(remote_tasks.c.item == item)
            ).scalar()

    def images_of_items(self, items: Collection[str]) -> dict[str, tuple[ProjectRole, str]]:
        """Item key -> role of the project it was pushed to, and image, of those keys that were pushed."""
        wanted, found = sorted(items), {}
        columns = (remote_tasks.c.item, remote_tasks.c.role, remote_tasks.c.image_id)
        with self._db.reading() as connection:
            for start in range(0, len(wanted), _KEYS_AT_ONCE):
                some = wanted[start : start + _KEYS_AT_ONCE]
                for row in connection.execute(select(*columns).where(remote_tasks.c.item.in_(some))):
                    found[row.item] = (ProjectRole(row.role), row.image_id)
        return found

    def record_ratings(self, number: int, found: Sequence[Rating]) -> bool:
        """All ratings of the round as they now stand; those that people deleted disappear here too.

        False, and nothing changes, once S and T were drawn from them.
        """
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
            # A cut at the same moment waits, or is waited for (Postgres; SQLite locks the whole database).
            connection.execute(
                select(rounds.c.number).where(rounds.c.number == number).with_for_update()
            ).first()
            if connection.execute(select(chosen).where(chosen.c.round_number == number)).first():
                return False
            connection.execute(delete(ratings).where(ratings.c.round_number == number))
            if rows:
                connection.execute(insert(ratings), rows)
        return True

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
            "lead_time_s": mask.lead_time_s,
        }
        with self._db.transaction() as connection:
            self._db.upsert(connection, masks, ["round_number", "image_id"], [row])

    def forget_masks(self, number: int, image_ids: Collection[str]) -> None:
        """Label maps that are no longer there, because people deleted or emptied them."""
        with self._db.transaction() as connection:
            for image_id in image_ids:
                gone = (masks.c.round_number == number) & (masks.c.image_id == image_id)
                connection.execute(delete(masks).where(gone))

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
                r.lead_time_s,
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


def _tasks_of(number: int, role: ProjectRole, seat: str) -> ColumnElement[bool]:
    return (
        (remote_tasks.c.round_number == number)
        & (remote_tasks.c.role == role)
        & (remote_tasks.c.seat == seat)
    )
