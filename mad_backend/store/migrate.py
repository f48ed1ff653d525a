"""Brings a database to this release's tables."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, text

from mad_backend.errors import StoreError

_LOCK: Final = 0x4D4144


def migrate(engine: Engine, found: str, latest: str) -> None:
    """From schema `found` ("": none yet) to `latest`; raises StoreError where a newer release has written it."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                # Of several processes that start at once, one migrates; SQLite's write lock does the same.
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, latest)
    except CommandError as error:
        raise StoreError(
            f"database {engine.url.render_as_string()} has schema {found}, this release knows up to {latest} "
            f"({error}); run the release that wrote it, or another database"
        ) from error
