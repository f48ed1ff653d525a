"""Databases of both kinds for the store's contract tests: SQLite, and a private Postgres."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mad_backend.store.store import Store

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _as_postgres(*command: str) -> list[str]:
    """Postgres refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server's `postgres` database; the server ends with the session."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        reason = "needs PostgreSQL's server: apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    binaries = found[-1].parent
    # Not below pytest's own folder, which only its owner may enter; a short path, for the socket.
    root = Path(tempfile.mkdtemp(prefix="mad-pg-", dir="/tmp"))
    port = _free_port()
    if os.geteuid() == 0:
        shutil.chown(root, "postgres")
    try:
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {root} -c fsync=off -c max_connections=40"
        initdb = [str(binaries / "initdb"), "-D", str(root / "data"), "-A", "trust", "-U", "mad", "-N"]
        _run(_as_postgres(*initdb))
        control = [str(binaries / "pg_ctl"), "-D", str(root / "data"), "-w", "-l", str(root / "log")]
        _run(_as_postgres(*control, "-o", options, "start"))
        try:
            yield f"postgresql+psycopg://mad@127.0.0.1:{port}/postgres"
        finally:
            _run(_as_postgres(*control, "-m", "immediate", "stop"))
    finally:
        shutil.rmtree(root)


def _run(command: list[str]) -> None:
    # Output to files and no pipe: the server would inherit it and keep it open.
    subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of its own."""
    from sqlalchemy import create_engine, text

    name = f"mad_{os.urandom(6).hex()}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgres_server.removesuffix("postgres") + name
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/mad.sqlite3"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def opened(url: str) -> Iterator[Store]:
    """A store with round 1 in state created."""
    store = Store(url)
    store.rounds.create(1, 7, NOON)
    yield store
    store.close()
