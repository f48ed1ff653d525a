"""A database of an earlier release, with rows in it, becomes one of this release without losing any."""

import json
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

import mad_backend.store
from mad_backend.core.records import Failure, HumanMask, ProjectRole, Rating, RemoteProject
from mad_backend.core.rounds import RoundState
from mad_backend.store import database
from mad_backend.store.store import Store
from mad_backend.store.versions import EvaluationRow

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)

ROWS = {
    "facts": [{"name": "item_secret", "value": "ab" * 32}],
    "rounds": [
        {
            "number": n,
            "state": "rating",
            "seed": 7,
            "target": "f@0",
            "note": "",
            "done": 1,
            "total": 2,
            "created_at": NOON,
            "changed_at": NOON,
        }
        for n in (1, 2)
    ],
    "remote_projects": [
        {
            "round_number": n,
            "role": role,
            "project_id": 10 * n + k,
            "title": f"Round {n}",
            "signature": "0" * 64,
        }
        for n in (1, 2)
        for k, role in enumerate(("rating", "segmentation"))
    ],
    "remote_tasks": [
        {
            "round_number": n,
            "role": "rating",
            "image_id": f"img-{k}",
            "item": f"item-{n}-{k}",
            "task_id": 10 * n + k,
        }
        for n in (1, 2)
        for k in range(3)
    ],
    "ratings": [
        {
            "round_number": 1,
            "image_id": "img-0",
            "rater": "ann",
            "score": 2,
            "annotation_id": 5,
            "created_at": NOON,
            "lead_time_s": 1.5,
        },
        {
            "round_number": 1,
            "image_id": "img-1",
            "rater": "ann",
            "score": None,
            "annotation_id": 6,
            "created_at": NOON,
            "lead_time_s": None,
        },
    ],
    "masks": [
        {
            "round_number": 1,
            "image_id": "img-0",
            "path": "m.png",
            "sha256": "1" * 64,
            "annotator": "bob",
            "annotation_id": 8,
            "notes": json.dumps(["odd"]),
        }
    ],
    "chosen": [{"round_number": 2, "image_id": "img-2", "part": "failures", "position": 0, "mos": 1.5}],
    "vetoes": [{"image_id": "img-1", "round_number": 1, "rater": "ann", "lifted": False}],
    "evaluations": [
        {"model": "f@0", "image_set": name, "images": 2, "path": f"{name}.npz", "sha256": "2" * 64}
        for name in ("T(0)", "T(1)")
    ],
}


def make_first_release(url: str) -> None:
    """The tables of revision 0001, and `ROWS` in them."""
    config = Config()
    config.set_main_option("script_location", str(Path(mad_backend.store.__file__).parent / "migrations"))
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for table, rows in ROWS.items():
            for row in rows:
                names = ", ".join(row)
                values = ", ".join(f":{name}" for name in row)
                # SQLite's driver no longer turns times into text by itself.
                given = {
                    name: value.strftime("%Y-%m-%d %H:%M:%S.%f")
                    if isinstance(value, datetime) and engine.dialect.name == "sqlite"
                    else value
                    for name, value in row.items()
                }
                if engine.dialect.name == "postgresql" and table == "masks":
                    values = values.replace(":notes", "CAST(:notes AS JSON)")
                connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), given)
    engine.dispose()


def test_a_database_of_revision_0001_keeps_all_rows_that_people_gave(url: str) -> None:
    make_first_release(url)
    for _ in range(2):
        store = Store(url)
        remote, role = store.remote, ProjectRole.RATING
        assert [(r.number, r.state, r.seed) for r in store.rounds.all()] == [
            (1, RoundState.RATING, 7),
            (2, RoundState.RATING, 7),
        ]
        assert remote.projects(2, role) == [RemoteProject(role, 20, "Round 2", "0" * 64, "")]
        assert remote.tasks(1, role) == {f"img-{k}": 10 + k for k in range(3)}
        assert remote.tasks(2, role) == {f"img-{k}": 20 + k for k in range(3)}
        assert remote.read_times(1, role) == {}
        assert remote.image_of_item("item-2-1") == "img-1"
        assert remote.ratings(1) == [
            Rating("img-0", "ann", 2, 5, NOON, 1.5),
            Rating("img-1", "ann", None, 6, NOON),
        ]
        assert remote.masks(1) == {"img-0": HumanMask("img-0", "m.png", "1" * 64, "bob", 8, ("odd",))}
        assert store.choices.failures(2) == [Failure("img-2", 1.5)]
        assert store.choices.vetoed() == {"img-1"}
        assert (store.answers.all(1), store.answers.departures(1)) == ([], [])
        store.close()


def test_after_the_upgrade_seats_have_projects_and_tasks_beside_the_shared_ones(url: str) -> None:
    make_first_release(url)
    store = Store(url)
    remote, role = store.remote, ProjectRole.RATING
    remote.record_project(1, RemoteProject(role, 30, "Round 1", "0" * 64, "ann"))
    remote.record_tasks(1, role, {"img-0": 40}, "ann")
    remote.record_read(1, role, {"img-0": NOON}, "ann")
    assert [p.seat for p in remote.projects(1, role)] == ["", "ann"]
    assert (remote.tasks(1, role)["img-0"], remote.tasks(1, role, "ann")) == (10, {"img-0": 40})
    assert (remote.read_times(1, role), remote.read_times(1, role, "ann")) == ({}, {40: NOON})
    store.close()


def test_numbers_of_unknown_weights_and_label_maps_are_not_taken_over(url: str) -> None:
    make_first_release(url)
    store = Store(url)
    assert store.versions.evaluations() == []
    row = EvaluationRow("f@0", "f@0-abc", "T(0)", "3" * 64, 2, "T0.npz", "2" * 64)
    store.versions.record_evaluation(row)
    store.close()
    again = Store(url)
    assert again.versions.evaluations() == [row]
    again.close()


def test_the_schema_that_this_release_looks_for_is_that_of_the_last_migration() -> None:
    folder = Path(database.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(config).get_current_head() == database.SCHEMA
