"""Bringing 2,000 x 3 ratings back from a real Label Studio, all and after ten changes, beside its own export."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import requests

from benchmarks.figure import print_figure
from benchmarks.own_server import fresh_server, sdk_seconds
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.label_config import rating_config
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.embedded import EmbeddedLabelStudio
from sync.projects import ensure_project
from sync.pull_ratings import pull_ratings
from sync.twins import tasks_by_item

TASKS, RATERS, CHANGED, CHUNK = 2000, 3, 10, 250


def main() -> None:
    """The server runs on the same machine; its time counts but where process time is said."""
    with fresh_server() as (server, store, root):
        client = server.client()
        project_id = rate_all(server, store)
        began = time.perf_counter()
        first = pull_ratings(client, store, 1, wanted=RATERS)
        full_s = time.perf_counter() - began
        assert (first.done, len(store.remote.ratings(1))) == (TASKS, TASKS * RATERS)
        began = time.perf_counter()
        options = {"exportType": "JSON", "download_all_tasks": "true"}
        client.get(f"/api/projects/{project_id}/export", "exporting", options)
        export_s = time.perf_counter() - began
        listed_s = sdk_seconds(server, "list_tasks", project_id, count=TASKS)
        snapshot_s = sdk_seconds(server, "export", project_id, count=TASKS)
        changed_s, own_s = after_changes(client, store)
        fresh_s = after_restart(client, store, root)
        asked_ms = median_ms(client.version)
        session = requests.Session()
        plain_ms = median_ms(lambda: session.get(f"{server.url}/api/version", timeout=30).json())
    name = "a small question on an open connection"
    print_figure(name, "ms", asked_ms, plain_ms, "requests.Session", 1.0, less_is_better=True)
    name = f"full pull of {TASKS} x {RATERS} ratings"
    print_figure(name, "s", full_s, export_s, "GET export, JSON", 1.0, less_is_better=True)
    print_figure(
        name, "s", full_s, listed_s, 'label_studio_sdk tasks.list(fields="all")', 1.0, less_is_better=True
    )
    print_figure(name, "s", full_s, snapshot_s, "label_studio_sdk exports.as_json", 1.0, less_is_better=True)
    name = f"pull after {CHANGED} changes in {TASKS} tasks"
    print_figure(f"{name}, own process time", "s", own_s, 1.0, "wanted", 1.0, less_is_better=True)
    print_figure(
        name, "s", changed_s, snapshot_s, "label_studio_sdk exports.as_json", 1.0, less_is_better=True
    )
    print_figure(
        f"{name}, by a process that begins",
        "s",
        fresh_s,
        1.0,
        "wanted, of process time",
        1.0,
        less_is_better=True,
    )


def median_ms(ask: Callable[[], object], repeats: int = 30) -> float:
    """Milliseconds by the clock."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        ask()
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def rate_all(server: EmbeddedLabelStudio, store: Store) -> int:
    """Id of a rating project of round 1 that three people have done."""
    client = server.client()
    emails = [f"rater{n}@example.com" for n in range(RATERS)]
    for email in emails:
        server.create_user(email, "Rater-pass-1")
    ids = [user_id for user_id, email in client.people().items() if email in emails]
    settings = {"label_config": rating_config(), "maximum_annotations": RATERS}
    project = ensure_project(client, store, 1, ProjectRole.RATING, "Pull", settings)
    images = [f"image-{n:05d}" for n in range(TASKS)]
    keys = {store.remote.item_key(1, ProjectRole.RATING, image_id): image_id for image_id in images}
    tasks = [{"data": data_of(key), "annotations": [rated(n, i) for i in ids]} for n, key in enumerate(keys)]
    for start in range(0, TASKS, CHUNK):
        client.import_tasks(project.project_id, tasks[start : start + CHUNK])
    there = tasks_by_item(client, project.project_id)
    store.remote.record_tasks(1, ProjectRole.RATING, {i: there[key][0].task_id for key, i in keys.items()})
    return project.project_id


def data_of(key: str) -> dict[str, str]:
    """A rating task's own."""
    return {"image": "/data/a.jpg", "overlay": "/data/b.jpg", "legend": "", "item": key}


def rated(n: int, user_id: int) -> dict[str, Any]:
    """What one person said of task `n`."""
    return {"completed_by": user_id, "lead_time": 2.0, "result": choice(1 + (n + user_id) % 5)}


def choice(grade: int) -> list[dict[str, Any]]:
    """The result list of a rating."""
    return [
        {"from_name": "quality", "to_name": "overlay", "type": "choices", "value": {"choices": [str(grade)]}}
    ]


def after_changes(client: LabelStudioClient, store: Store) -> tuple[float, float]:
    """Seconds, and seconds of our process, of a pull after ten answers were changed."""
    tasks = list(store.remote.tasks(1, ProjectRole.RATING).values())
    for task_id in tasks[:: TASKS // CHANGED][:CHANGED]:
        client.update_annotation(client.annotations(task_id)[0].annotation_id, choice(5))
    began, cpu = time.perf_counter(), time.process_time()
    assert pull_ratings(client, store, 1, wanted=RATERS).done == TASKS
    return time.perf_counter() - began, time.process_time() - cpu


def after_restart(client: LabelStudioClient, store: Store, root: Path) -> float:
    """Seconds of our process of a pull after ten more changes, by a store that was just opened."""
    tasks = list(store.remote.tasks(1, ProjectRole.RATING).values())
    for task_id in tasks[1 :: TASKS // CHANGED][:CHANGED]:
        client.update_annotation(client.annotations(task_id)[0].annotation_id, choice(1))
    again = Store(f"sqlite:///{root}/mad.sqlite3")
    cpu = time.process_time()
    assert pull_ratings(client, again, 1, wanted=RATERS).done == TASKS
    again.close()
    return time.process_time() - cpu


if __name__ == "__main__":
    main()
