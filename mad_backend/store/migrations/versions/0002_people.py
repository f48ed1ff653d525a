"""Seats, answers one by one, raters who left, and the cross-check."""

import sqlalchemy as sa
from alembic import op

from mad_backend.store.tables import UtcDateTime

revision = "0002"
down_revision = "0001"

NAMES = {"uq": "uq_%(table_name)s_%(column_0_N_name)s"}
"""The first release left its constraints without names on SQLite; batch mode calls them so."""


def upgrade() -> None:
    """Creates or changes the tables."""
    _seat("remote_projects", "uq_remote_projects_round_number_role", ["round_number", "role", "seat"])
    _seat(
        "remote_tasks",
        "uq_remote_tasks_round_number_role_image_id",
        ["round_number", "role", "seat", "image_id"],
    )
    op.add_column("remote_tasks", sa.Column("read_at", UtcDateTime(), nullable=True))
    op.add_column("masks", sa.Column("annotator_id", sa.Integer(), nullable=True))
    op.add_column("masks", sa.Column("drawn_at", UtcDateTime(), nullable=True))
    op.create_table(
        "answers",
        _round_key(),
        sa.Column("seat", sa.String(length=200), nullable=False),
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("score", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("lead_time_s", sa.Float(), nullable=True),
        _round(),
        sa.UniqueConstraint("round_number", "annotation_id"),
    )
    op.create_table(
        "departures",
        _round_key(),
        sa.Column("rater", sa.String(length=200), nullable=False),
        sa.Column("replaced_by", sa.String(length=200), nullable=True),
        sa.Column("discarded", sa.Boolean(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        _round(),
        sa.UniqueConstraint("round_number", "rater"),
    )
    op.create_table(
        "checks",
        _round_key(),
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("mask_sha256", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.Column("checker", sa.String(length=200), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=True),
        sa.Column("changed_share", sa.Float(precision=53), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("decided_at", UtcDateTime(), nullable=False),
        _round(),
        sa.UniqueConstraint("round_number", "image_id", "mask_sha256"),
    )


def _round_key() -> sa.Column[int]:
    return sa.Column("round_number", sa.Integer(), nullable=False)


def _round() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE")


def _seat(table: str, unique: str, columns: list[str]) -> None:
    """A column for the seat, in the table's unique constraint too."""
    if op.get_bind().dialect.name == "postgresql":
        # Postgres names constraints itself: table, columns, key.
        unique = table + unique.removeprefix(f"uq_{table}") + "_key"
    with op.batch_alter_table(table, naming_convention=NAMES) as batch:
        batch.add_column(sa.Column("seat", sa.String(length=200), nullable=False, server_default=""))
        batch.drop_constraint(unique, type_="unique")
        batch.create_unique_constraint(f"uq_{table}_seat", columns)
