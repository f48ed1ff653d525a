"""Opening the database: SQLite by default, Postgres by URL, migrated to this release's tables."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mad_backend.errors import StoreError

BUSY_TIMEOUT_MS = 30_000
"""How long a writer waits for another process before SQLite gives up."""
SCHEMA = "0005"
"""The latest of `migrations/`."""
_READS = "mad_reads"
"""Option of connections that change nothing."""


class Database:
    """An engine whose transactions commit on leaving and turn driver errors into StoreError."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise StoreError(
                f"database {parsed.render_as_string()}: wanted sqlite:/// or postgresql+psycopg://"
            )
        if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
            Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _set_up_sqlite)
            event.listen(self.engine, "begin", _begin_immediate)
        try:
            self._migrate()
        except BaseException:
            self.engine.dispose()  # nobody gets this object, who could close its connections
            raise

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction; raises StoreError with the driver's own reason, without the statement's values."""
        with self._explained(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """As `transaction`, for questions only: in SQLite it waits for no writer, and none waits for it."""
        with (
            self._explained(),
            self.engine.connect() as connection,
            connection.execution_options(**{_READS: True}).begin(),
        ):
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise StoreError(f"database {self.engine.url.render_as_string()}: {_reason(error)}") from error

    def insert_missing(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows; those that a unique constraint already has are left as they are."""
        if rows:
            connection.execute(self.insert_or_ignore(table), [dict(row) for row in rows])

    def upsert(
        self, connection: Connection, table: Table, keys: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Inserts rows; where one with the same `keys` exists, its other columns are overwritten."""
        if rows:
            statement = self._insert(table)
            others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
            connection.execute(
                statement.on_conflict_do_update(index_elements=list(keys), set_=others),
                [dict(row) for row in rows],
            )

    def insert_or_ignore(self, table: Table) -> Any:
        """An INSERT that does nothing where a unique constraint has the row already; RETURNING tells."""
        return self._insert(table).on_conflict_do_nothing()

    def _insert(self, table: Table) -> Any:
        dialect = sqlite if self.engine.dialect.name == "sqlite" else postgresql
        return dialect.insert(table)

    def _migrate(self) -> None:
        found = ""
        try:
            with self.engine.connect().execution_options(**{_READS: True}) as connection:
                if inspect(connection).has_table("alembic_version"):
                    found = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
            if found != SCHEMA:
                # Late: most processes find what they need, and alembic takes half a second to import.
                from mad_backend.store.migrate import migrate

                migrate(self.engine, found, SCHEMA)
        except SQLAlchemyError as error:
            raise StoreError(
                f"cannot open database {self.engine.url.render_as_string()}: {_reason(error)}; "
                "check database in the settings"
            ) from error


def _reason(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own BEGIN comes too late for DDL: a killed migration would leave half of it behind.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_wal(cursor)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """The busy timeout does not hold for this switch: while another process makes the file, it is tried again."""
    until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for the lock; one that takes it at once can.
    reads = connection.get_execution_options().get(_READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
