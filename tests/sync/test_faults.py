"""Pushing through a proxy that fails: nothing is missing and nothing is there twice, whatever happens meanwhile.

MAD_FAULT_RUNS says how many random stories are told, each from a seed of its own (1 by default).
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mad_backend.core.drawing import overlay
from mad_backend.core.records import ProjectRole
from mad_backend.errors import LabelStudioError
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.push import PushItem, jpeg
from sync.rating_project import push_rating
from tests.conftest import RunningLabelStudio
from tests.sync.fault_proxy import Choose, Fault, ReverseProxy, at_random
from tests.sync.test_push import LABELS, items, silent

RUNS = int(os.environ.get("MAD_FAULT_RUNS", "1"))
COUNT = 40
TIMEOUT_S = 3.0
PUSHER = """
import sys
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.rating_project import push_rating
from tests.sync.test_push import LABELS, items, silent
print("ready", flush=True)
url, token, database, count, timeout = sys.stdin.read().split()
client = LabelStudioClient(url, token, float(timeout), 0.02)
push_rating(client, Store(database), 1, "Faults", LABELS, items(int(count)), report=silent)
"""


def push(client: LabelStudioClient, store: Store, pushed: list[PushItem]) -> None:
    push_rating(client, store, 1, "Faults", LABELS, pushed, report=silent)


def projects(running: RunningLabelStudio, store: Store) -> tuple[list[int], list[int]]:
    """Ids of the rating project and its pictures' project, and of late twins of them, oldest first."""
    keys = ("mad-" + store.remote.item_key(1, ProjectRole.RATING, name) for name in ("", "\npictures"))
    rating, shelves = ([p.project_id for p in running.admin.projects_with(key)] for key in keys)
    return rating, shelves


def assert_exactly_once(running: RunningLabelStudio, store: Store, pushed: list[PushItem]) -> None:
    """On the server itself: a task per item, in one project, showing the photo and the overlay of that very item."""
    project = store.remote.project(1, ProjectRole.RATING)
    assert project
    there = running.admin.tasks(project.project_id)
    keys = {store.remote.item_key(1, ProjectRole.RATING, item.image_id): item for item in pushed}
    assert Counter(t.item for t in there) == Counter(keys.keys())
    tasks = store.remote.tasks(1, ProjectRole.RATING)
    assert {tasks[keys[str(t.item)].image_id]: t.item for t in there} == {t.task_id: t.item for t in there}
    for _, data in running.admin.task_data(project.project_id):
        rgb, label_map = keys[data["item"]].load()
        assert running.admin.download(data["image"], 10**7) == jpeg(rgb)
        assert running.admin.download(data["overlay"], 10**7) == jpeg(overlay(rgb, label_map, LABELS))
    twins = [p for p in projects(running, store)[0] if p != project.project_id]
    assert not [p for p in twins if running.admin.tasks(p)]


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_push_that_is_killed_again_and_again_on_a_bad_day_sends_every_item_exactly_once(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(f"story {seed}")
    person = _Person(label_studio, store, rng)
    with ReverseProxy(label_studio.server.url, choose=at_random(seed, 0.25), late_s=TIMEOUT_S + 0.7) as proxy:
        for _ in range(2):
            told = f"{proxy.url} {label_studio.server.token} sqlite:///{tmp_path}/mad.sqlite3 {COUNT} {TIMEOUT_S}"
            _push_and_kill(told, rng.uniform(0.1, 2.5), person.act)
        client = LabelStudioClient(proxy.url, label_studio.server.token, TIMEOUT_S, 0.02)
        meanwhile = threading.Timer(rng.uniform(0.1, 1.5), person.act)
        meanwhile.start()
        assert any(is_through(client, store) for _ in range(10)), proxy.faults  # tick by tick
        meanwhile.join()
    # Every request that anybody ever made has been carried out by now.
    push(label_studio.admin, store, items(COUNT))
    assert_exactly_once(label_studio, store, items(COUNT))


def is_through(client: LabelStudioClient, store: Store) -> bool:
    """One push; False if it has to be repeated, as the scheduler does in its next tick."""
    try:
        push(client, store, items(COUNT))
    except LabelStudioError as error:
        if not (error.status is None or error.status == 404 or error.status >= 500):
            raise
        return False
    return True


class _Person:
    """Somebody who clears up in Label Studio without knowing what is going on."""

    def __init__(self, running: RunningLabelStudio, store: Store, rng: random.Random) -> None:
        self._running, self._store, self._rng = running, store, rng

    def act(self) -> None:
        rating, shelves = projects(self._running, self._store)
        what = self._rng.choice(("tasks", "tasks", "project", "pictures", "nothing"))
        admin = self._running.admin
        if what == "tasks" and rating:
            found = admin.tasks(rating[0])
            for task in self._rng.sample(found, min(3, len(found))):
                _as_far_as_it_goes(partial(admin.delete_task, task.task_id))
        elif what == "project" and rating:
            _as_far_as_it_goes(partial(admin.delete_project, rating[0]))
        elif what == "pictures" and shelves:
            _as_far_as_it_goes(partial(admin.delete_project, shelves[0]))


def _as_far_as_it_goes(work: Callable[[], None]) -> None:
    """What is gone cannot be deleted; nor can a project, now and then, that is just imported into (500, measured)."""
    try:
        work()
    except LabelStudioError as error:
        if error.status not in (404, 500):
            raise


def _push_and_kill(told: str, after_s: float, meanwhile: Callable[[], None]) -> None:
    pusher = subprocess.Popen(
        [sys.executable, "-c", PUSHER],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert pusher.stdin
    assert pusher.stdout
    assert pusher.stdout.readline() == "ready\n"
    try:
        pusher.stdin.write(told)
        pusher.stdin.close()
        time.sleep(after_s / 2)
        meanwhile()
        time.sleep(after_s / 2)
    finally:
        pusher.kill()
        pusher.wait()
        pusher.stdout.close()


def once(method: str, end: str, fault: Fault, place: int = 1) -> Choose:
    """`fault` for the `place`-th request whose path ends so."""
    seen = 0

    def choose(asked: str, path: str) -> Fault | None:
        nonlocal seen
        seen += asked == method and path.endswith(end)
        return fault if seen == place and asked == method and path.endswith(end) else None

    return choose


IMPORT = ("POST", "/import")
UPLOAD = ("POST", "/import?commit_to_project=false")
CREATION = ("POST", "/api/projects/")


@pytest.mark.parametrize(
    ("request_of", "fault"),
    [
        *((IMPORT, fault) for fault in Fault if fault is not Fault.FORWARDED_LATE),
        *((UPLOAD, fault) for fault in (Fault.DROPPED_AFTER, Fault.CUT, Fault.BAD_GATEWAY_BEFORE)),
        *((CREATION, fault) for fault in (Fault.DROPPED_AFTER, Fault.ANSWER_LATE, Fault.DROPPED_BEFORE)),
    ],
)
def test_any_single_fault_is_got_over_at_once(
    label_studio: RunningLabelStudio, store: Store, request_of: tuple[str, str], fault: Fault
) -> None:
    choose = once(*request_of, fault)
    with ReverseProxy(label_studio.server.url, choose=choose, late_s=1.0) as proxy:
        client = LabelStudioClient(proxy.url, label_studio.server.token, 0.7, 0.02)
        push(client, store, items(2))
        sent = sum(line.startswith("POST") and line.endswith(request_of[1]) for line in proxy.seen)
    assert proxy.faults == [fault]
    assert_exactly_once(label_studio, store, items(2))
    arrived = fault in (Fault.DROPPED_AFTER, Fault.UNAVAILABLE_AFTER, Fault.CUT, Fault.ANSWER_LATE)
    usual = 2 if request_of is CREATION else 1  # the rating project, and that of its pictures
    assert sent == usual + (not arrived)


def test_an_import_that_arrives_after_the_push_had_ended_is_noticed_by_the_next(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    choose = once(*IMPORT, Fault.FORWARDED_LATE)
    with ReverseProxy(label_studio.server.url, choose=choose, late_s=30) as proxy:
        client = LabelStudioClient(proxy.url, label_studio.server.token, 0.7, 0.02)
        push(client, store, items(3))
        assert_exactly_once(label_studio, store, items(3))
        before = store.remote.tasks(1, ProjectRole.RATING)
    project = store.remote.project(1, ProjectRole.RATING)
    assert project
    assert len(label_studio.admin.tasks(project.project_id)) == 6
    push(label_studio.admin, store, items(3))
    assert_exactly_once(label_studio, store, items(3))
    assert store.remote.tasks(1, ProjectRole.RATING) == before


def test_a_server_that_is_away_for_a_while_does_not_fail_a_push(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    away_until: list[float] = []

    def choose(method: str, path: str) -> Fault | None:
        if (method, path.rpartition("/")[2]) == ("POST", "import") and not away_until:
            away_until.append(time.monotonic() + 2.0)
        return Fault.REFUSED if away_until and time.monotonic() < away_until[0] else None

    with ReverseProxy(label_studio.server.url, choose=choose) as proxy:
        push(LabelStudioClient(proxy.url, label_studio.server.token, 5.0, 0.03), store, items(2))
    assert_exactly_once(label_studio, store, items(2))


def test_what_the_server_refuses_fails_at_once_with_its_reason(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    class Bogus:
        def own_address(self, address: str) -> str | None:
            return None

        def place(self, project_id: int, pictures: object) -> dict[str, object]:
            return Forgetful()

    class Forgetful(dict[str, object]):
        def __missing__(self, name: str) -> object:
            return {"no": "address"}

    with ReverseProxy(label_studio.server.url) as proxy:
        client = LabelStudioClient(proxy.url, label_studio.server.token, backoff_s=5)
        with pytest.raises(LabelStudioError, match=r"importing 2 tasks.*400") as caught:
            push_rating(client, store, 1, "Faults", LABELS, items(2), report=silent, host=Bogus())  # type: ignore[arg-type]
    assert caught.value.status == 400
    assert sum(line.endswith("/import") for line in proxy.seen) == 1
    assert store.remote.tasks(1, ProjectRole.RATING) == {}


def test_a_server_that_never_comes_back_ends_a_push_in_bounded_time(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    def choose(method: str, path: str) -> Fault | None:
        return Fault.BAD_GATEWAY_BEFORE if path.endswith("/import") else None

    with ReverseProxy(label_studio.server.url, choose=choose) as proxy:
        client = LabelStudioClient(proxy.url, label_studio.server.token, backoff_s=0.005)
        with pytest.raises(LabelStudioError, match=r"importing 2 tasks.*502"):
            push(client, store, items(2))
    assert sum(line.endswith("/import") for line in proxy.seen) == 9


def test_pictures_whose_project_was_deleted_come_back_and_answers_stay(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    push(label_studio.admin, store, items(3))
    before = store.remote.tasks(1, ProjectRole.RATING)
    label_studio.raters[0].create_annotation(before["secret-name-000"], [])
    label_studio.admin.delete_project(projects(label_studio, store)[1][0])
    push(label_studio.admin, store, items(3))
    assert store.remote.tasks(1, ProjectRole.RATING) == before
    assert len(label_studio.admin.annotations(before["secret-name-000"])) == 1
    assert_exactly_once(label_studio, store, items(3))


def test_pictures_whose_project_is_deleted_in_the_middle_of_a_push_come_back(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    deleted: list[int] = []

    def choose(method: str, path: str) -> None:
        if path.endswith("/import") and not deleted:
            deleted.extend(projects(label_studio, store)[1])
            label_studio.admin.delete_project(deleted[0])

    with ReverseProxy(label_studio.server.url, choose=choose) as proxy:
        push(LabelStudioClient(proxy.url, label_studio.server.token, backoff_s=0.02), store, items(3))
    assert deleted
    assert_exactly_once(label_studio, store, items(3))


def test_a_project_that_is_deleted_in_the_middle_of_a_push_is_told_and_made_anew_by_the_next(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    def choose(method: str, path: str) -> None:
        if path.endswith("/import"):
            label_studio.admin.delete_project(projects(label_studio, store)[0][0])

    with ReverseProxy(label_studio.server.url, choose=choose) as proxy:
        client = LabelStudioClient(proxy.url, label_studio.server.token, backoff_s=0.02)
        with pytest.raises(
            LabelStudioError, match="was deleted in Label Studio while tasks were sent"
        ) as caught:
            push(client, store, items(2))
    assert caught.value.status == 404
    push(label_studio.admin, store, items(2))
    assert_exactly_once(label_studio, store, items(2))


def test_a_twin_that_somebody_began_is_never_deleted(label_studio: RunningLabelStudio, store: Store) -> None:
    push(label_studio.admin, store, items(2))
    project = store.remote.project(1, ProjectRole.RATING)
    assert project
    first, second = (label_studio.admin.tasks(project.project_id)[n] for n in range(2))
    data = label_studio.admin.get(f"/api/tasks/{first.task_id}/", "looking")["data"]
    other = label_studio.admin.get(f"/api/tasks/{second.task_id}/", "looking")["data"]
    label_studio.admin.import_tasks(project.project_id, [{"data": data}, {"data": other}])
    twins = label_studio.admin.tasks(project.project_id)[2:]
    rater = label_studio.raters[0]
    draft = {"result": [], "lead_time": 1.0}
    path = f"/api/tasks/{twins[0].task_id}/drafts?project={project.project_id}"
    rater.send("POST", path, "keeping a draft", draft)
    rater.create_annotation(twins[1].task_id, [], was_cancelled=True)
    push(label_studio.admin, store, items(2))
    left = {t.task_id for t in label_studio.admin.tasks(project.project_id)}
    assert left >= {t.task_id for t in twins}
