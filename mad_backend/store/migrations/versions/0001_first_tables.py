"""First tables."""

import sqlalchemy as sa
from alembic import op

from mad_backend.store.tables import UtcDateTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates or changes the tables."""
    op.create_table(
        "evaluations",
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("image_set", sa.String(length=40), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.UniqueConstraint("model", "image_set"),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "model_versions",
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
        sa.UniqueConstraint("round_number"),
    )
    op.create_table(
        "rounds",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("came_from", sa.String(length=20), nullable=True),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(length=200), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(length=120), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "unreadable_images",
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("image_id"),
    )
    op.create_table(
        "chosen",
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("part", sa.String(length=20), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("mos", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE"),
        sa.UniqueConstraint("image_id"),
        sa.UniqueConstraint("round_number", "part", "position"),
    )
    op.create_table(
        "masks",
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("annotator", sa.String(length=200), nullable=False),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE"),
        sa.UniqueConstraint("round_number", "image_id"),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("promoted_at", UtcDateTime(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version"],
            ["model_versions.version"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "ratings",
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("rater", sa.String(length=200), nullable=False),
        sa.Column("score", sa.Integer(), nullable=True),
        sa.Column("annotation_id", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("lead_time_s", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE"),
        sa.UniqueConstraint("round_number", "image_id", "rater"),
    )
    op.create_table(
        "remote_projects",
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE"),
        sa.UniqueConstraint("round_number", "role"),
    )
    op.create_table(
        "remote_tasks",
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("item", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE"),
        sa.UniqueConstraint("item"),
        sa.UniqueConstraint("round_number", "role", "image_id"),
    )
    op.create_table(
        "selected",
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("competitor", sa.String(length=120), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("discrepancy", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE"),
        sa.UniqueConstraint("round_number", "competitor", "class_id", "role", "rank"),
    )
    op.create_table(
        "vetoes",
        sa.Column("image_id", sa.String(length=400), nullable=False),
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("rater", sa.String(length=200), nullable=False),
        sa.Column("lifted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["round_number"], ["rounds.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("image_id"),
    )
