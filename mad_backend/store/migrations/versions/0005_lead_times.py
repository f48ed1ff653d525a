"""How long label maps and checks took, and what the stop rule said of a round."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Creates or changes the tables."""
    op.add_column("masks", sa.Column("lead_time_s", sa.Float(), nullable=True))
    op.add_column("checks", sa.Column("lead_time_s", sa.Float(), nullable=True))
    op.add_column("rounds", sa.Column("stop", sa.Text(), nullable=True))
