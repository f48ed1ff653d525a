"""The tables; `migrations/` turns a database of an earlier release into these."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC times; SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        stored: datetime | None = value
        return stored.replace(tzinfo=UTC) if stored and stored.tzinfo is None else stored


metadata = MetaData()

facts = Table(
    "facts",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("value", Text, nullable=False),
)

rounds = Table(
    "rounds",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(20), nullable=False),
    Column("came_from", String(20)),
    Column("seed", Integer, nullable=False),
    Column("target", String(200)),
    Column("error", Text),
    Column("outcome", Text),
    Column("stop", Text),
    Column("note", Text, nullable=False, default=""),
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer, nullable=False, default=0),
    Column("lease_owner", String(120)),
    Column("lease_until", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)


def _round_key() -> Column[int]:
    return Column("round_number", Integer, ForeignKey("rounds.number", ondelete="CASCADE"), nullable=False)


unreadable_images = Table(
    "unreadable_images",
    metadata,
    Column("image_id", String(400), primary_key=True),
    Column("reason", Text, nullable=False),
)

selected = Table(
    "selected",
    metadata,
    _round_key(),
    Column("image_id", String(400), nullable=False),
    Column("competitor", String(120), nullable=False),
    Column("class_id", Integer, nullable=False),
    Column("role", String(20), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("discrepancy", Float(53), nullable=False),
    UniqueConstraint("round_number", "competitor", "class_id", "role", "rank"),
)

remote_projects = Table(
    "remote_projects",
    metadata,
    _round_key(),
    Column("role", String(20), nullable=False),
    Column("project_id", Integer, nullable=False),
    Column("title", String(200), nullable=False),
    Column("signature", String(64), nullable=False),
    Column("seat", String(200), nullable=False, server_default=""),
    UniqueConstraint("round_number", "role", "seat"),
)

remote_tasks = Table(
    "remote_tasks",
    metadata,
    _round_key(),
    Column("role", String(20), nullable=False),
    Column("image_id", String(400), nullable=False),
    Column("item", String(64), nullable=False, unique=True),
    Column("task_id", Integer, nullable=False),
    Column("seat", String(200), nullable=False, server_default=""),
    # `updated_at` of the task at the server when its answers were last read; null: never.
    Column("read_at", UtcDateTime),
    UniqueConstraint("round_number", "role", "seat", "image_id"),
)

answers = Table(
    "answers",
    metadata,
    _round_key(),
    Column("seat", String(200), nullable=False),
    Column("image_id", String(400), nullable=False),
    Column("task_id", Integer, nullable=False),
    Column("annotation_id", Integer, nullable=False),
    Column("rater", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("score", Integer),
    Column("created_at", UtcDateTime, nullable=False),
    Column("lead_time_s", Float),
    UniqueConstraint("round_number", "annotation_id"),
)

departures = Table(
    "departures",
    metadata,
    _round_key(),
    Column("rater", String(200), nullable=False),
    Column("replaced_by", String(200)),
    Column("discarded", Boolean, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    UniqueConstraint("round_number", "rater"),
)

ratings = Table(
    "ratings",
    metadata,
    _round_key(),
    Column("image_id", String(400), nullable=False),
    Column("rater", String(200), nullable=False),
    Column("score", Integer),
    Column("annotation_id", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("lead_time_s", Float),
    UniqueConstraint("round_number", "image_id", "rater"),
)

vetoes = Table(
    "vetoes",
    metadata,
    Column("image_id", String(400), primary_key=True),
    _round_key(),
    Column("rater", String(200), nullable=False),
    Column("lifted", Boolean, nullable=False, default=False),
)

chosen = Table(
    "chosen",
    metadata,
    _round_key(),
    Column("image_id", String(400), nullable=False),
    Column("part", String(20), nullable=False),
    Column("position", Integer, nullable=False),
    Column("mos", Float(53)),
    UniqueConstraint("image_id"),
    UniqueConstraint("round_number", "part", "position"),
)

masks = Table(
    "masks",
    metadata,
    _round_key(),
    Column("image_id", String(400), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("annotator", String(200), nullable=False),
    Column("annotation_id", Integer, nullable=False),
    Column("notes", JSON, nullable=False),
    # Who drew it, as Label Studio numbers people, and when: the cross-check asks for both.
    Column("annotator_id", Integer),
    Column("drawn_at", UtcDateTime),
    Column("lead_time_s", Float),
    UniqueConstraint("round_number", "image_id"),
)

checks = Table(
    "checks",
    metadata,
    _round_key(),
    Column("image_id", String(400), nullable=False),
    Column("mask_sha256", String(64), nullable=False),
    Column("verdict", String(20), nullable=False),
    Column("errors", JSON, nullable=False),
    Column("checker", String(200), nullable=False),
    Column("annotation_id", Integer),
    Column("changed_share", Float(53)),
    Column("path", Text),
    Column("sha256", String(64)),
    Column("notes", JSON, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("lead_time_s", Float),
    UniqueConstraint("round_number", "image_id", "mask_sha256"),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("version", String(200), primary_key=True),
    Column("round_number", Integer, nullable=False, unique=True),
    Column("path", Text),
    Column("created_at", UtcDateTime, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", String(200), ForeignKey("model_versions.version"), nullable=False),
    Column("promoted_at", UtcDateTime, nullable=False),
    Column("reason", Text, nullable=False),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("model", String(200), nullable=False),
    # What the numbers are of: the model's weights and settings, and the images with their label maps.
    Column("model_key", String(240), nullable=False),
    Column("image_set", String(40), nullable=False),
    Column("images_digest", String(64), nullable=False),
    Column("images", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    UniqueConstraint("model_key", "image_set", "images_digest"),
)

duels = Table(
    "duels",
    metadata,
    Column("first_key", String(240), nullable=False),
    Column("second_key", String(240), nullable=False),
    Column("first", String(200), nullable=False),
    Column("second", String(200), nullable=False),
    Column("budget", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    # [image id, discrepancy] of each, in the order drawn.
    Column("images", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("first_key", "second_key"),
)
