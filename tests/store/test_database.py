"""Databases of both kinds: opened at once by several, opened again, migrated, refused."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from mad_backend.errors import StoreError
from mad_backend.store.store import Store
from mad_backend.store.tables import metadata

RACER = """
import sys
from datetime import datetime, UTC
from mad_backend.core.records import Failure
from mad_backend.core.rounds import RoundState
from mad_backend.store.store import Store
url, name = sys.argv[1:]
now = datetime(2026, 1, 1, 12, tzinfo=UTC)
print("ready", flush=True)
for line in sys.stdin:
    match line.strip():
        case "open":
            store = Store(url)
            print(store.rounds.latest(), flush=True)
        case "create":
            print(sum(store.rounds.create(n, 0, now) for n in range(1, 31)), flush=True)
        case "claim":
            print(sum(store.rounds.claim(n, name, now, 60) for n in range(1, 31)), flush=True)
        case "advance":
            states = RoundState.CREATED, RoundState.PREDICTING
            print(sum(store.rounds.advance(n, *states, now) for n in range(1, 31)), flush=True)
        case "cut":
            for n in range(1, 31):
                store.choices.record_cut(n, [Failure(f"{n}-{name}-{i}", 1.0) for i in range(5)], [], {})
            print("done", flush=True)
store.close()
"""


def race(url: str, *actions: str) -> list[tuple[str, ...]]:
    """What two processes answer to each of `actions`, which both start at the same moment."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RACER, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    answers = []
    for action in ("", *actions):
        for racer in racers:
            assert racer.stdin
            assert racer.stdout
            if action:
                racer.stdin.write(f"{action}\n")
                racer.stdin.flush()
        answers.append(tuple(racer.stdout.readline().strip() for racer in racers if racer.stdout))
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0
    return answers[1:]


def test_two_processes_share_a_fresh_database_and_of_two_at_once_one_wins(url: str) -> None:
    opening, creating, claiming, advancing, _ = race(url, "open", "create", "claim", "advance", "cut")
    assert opening == ("None", "None")
    assert [sum(map(int, wins)) for wins in (creating, claiming, advancing)] == [30, 30, 30]
    store = Store(url)
    for number in range(1, 31):
        found = [f.image_id.split("-")[1] for f in store.choices.failures(number)]
        assert found in (["a"] * 5, ["b"] * 5)
    store.close()


def test_everything_survives_a_restart(opened: Store, url: str) -> None:
    opened.close()
    again = Store(url)
    assert again.rounds.get(1).seed == 7
    again.close()


def test_migrations_lead_to_the_tables_of_the_code(opened: Store, url: str) -> None:
    assert opened
    engine = create_engine(url)
    with engine.connect() as connection, warnings.catch_warnings():
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_database_of_a_newer_release_is_refused_and_left_alone(opened: Store, url: str) -> None:
    opened.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="has schema 9999, this release knows up to"):
        Store(url)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            assert connection.execute(text(others)).scalar() == 1, "its own connection was left open"
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "9999"
    engine.dispose()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("mysql://u:secret@h/x", "wanted sqlite:/// or postgresql"),
        (
            "postgresql+psycopg://mad:secret@127.0.0.1:1/x",
            "cannot open database .*check database in the settings",
        ),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(wrong: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Store(wrong)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/new folder/mad.sqlite3")
    store.close()
    assert (tmp_path / "new folder" / "mad.sqlite3").is_file()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite3").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(StoreError, match=r"x\.sqlite3"):
        Store(f"sqlite:///{tmp_path}/x.sqlite3")
