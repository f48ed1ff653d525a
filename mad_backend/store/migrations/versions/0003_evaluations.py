"""Evaluations by what determines them: the model's key and a digest of images and label maps."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Creates or changes the tables."""
    # An earlier release did not write down of which weights and label maps its numbers are, and nobody can tell now:
    # they go, and are measured again from stored label maps when a round next evaluates.
    op.drop_table("evaluations")
    op.create_table(
        "evaluations",
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("model_key", sa.String(length=240), nullable=False),
        sa.Column("image_set", sa.String(length=40), nullable=False),
        sa.Column("images_digest", sa.String(length=64), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.UniqueConstraint("model_key", "image_set", "images_digest"),
    )
