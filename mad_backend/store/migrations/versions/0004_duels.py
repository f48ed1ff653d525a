"""Duels of two models and their images, which are never trained on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Creates or changes the tables."""
    op.create_table(
        "duels",
        sa.Column("first_key", sa.String(length=240), nullable=False),
        sa.Column("second_key", sa.String(length=240), nullable=False),
        sa.Column("first", sa.String(length=200), nullable=False),
        sa.Column("second", sa.String(length=200), nullable=False),
        sa.Column("budget", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("first_key", "second_key"),
    )
