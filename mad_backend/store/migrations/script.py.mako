"""${message}."""

import sqlalchemy as sa
from alembic import op

from mad_backend.store.tables import UtcDateTime

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Creates or changes the tables."""
    ${upgrades if upgrades else "pass"}
