"""Servers other than Community 1.23, by documented API: imports through a queue, other shapes and sizes of lists."""

import contextlib
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.errors import LabelStudioError
from mad_backend.label_studio.label_config import rating_config, signature
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pages import entries
from sync.pictures import UploadedPictures
from sync.projects import ensure_project
from sync.push import Drawn, PushItem, push_items
from tests.sync.json_server import answering
from tests.sync.test_push import items, silent

PROJECT = RemoteProject(ProjectRole.RATING, 7, "MAD", signature(rating_config()))


class FakeEnterprise:
    """One project, number 7. Imports are done by a worker that needs `polls` questions for each."""

    def __init__(self, *, polls: int = 2, page_limit: int = 20, bare_lists: bool = False) -> None:
        self.polls = polls
        self.page_limit = page_limit
        self.bare_lists = bare_lists
        self.tasks: list[dict[str, Any]] = []
        self.files: dict[int, str] = {}
        self.queue: dict[int, dict[str, Any]] = {}
        self.fails_with = ""
        self.is_stuck = False
        self.lost_answers = 0
        self.asked: list[str] = []
        self._ids = itertools.count(1)
        self._lock = threading.Lock()

    def answer(self, method: str, address: str, body: bytes) -> tuple[int, Any]:
        parts = urlsplit(address)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        with self._lock:
            self.asked.append(f"{method} {address}")
            if found := re.fullmatch(r"/api/projects/7/imports/(\d+)/", parts.path):
                return self._poll(int(found[1]))
            project = {"id": 7, "title": "MAD", "label_config": rating_config()}
            answers: dict[str, Callable[[], tuple[int, Any]]] = {
                "POST /api/projects/7/import": lambda: self._import(query, body),
                "GET /api/tasks/": lambda: self._page(int(query["page"]), int(query["page_size"])),
                "GET /api/projects/7/file-uploads": lambda: self._uploads(query),
                "GET /api/projects/7/": lambda: (200, project),
                "GET /api/projects/": lambda: (200, {"count": 0, "results": []}),
                "POST /api/projects/": lambda: (201, project),
            }
            return answers.get(f"{method} {parts.path}", lambda: (404, {"detail": "Not found."}))()

    def _uploads(self, query: Mapping[str, str]) -> tuple[int, Any]:
        wanted = json.loads(query["ids"]) if "ids" in query else list(self.files)
        return 200, [{"id": i, "file": self.files[i]} for i in wanted]

    def _import(self, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        number = next(self._ids)
        names = re.findall(rb'filename="([^"]+)"', body)
        ids = []
        for name in names if "commit_to_project" in query else ():
            ids.append(next(self._ids))
            self.files[ids[-1]] = f"upload/7/0123abcd-{name.decode()}"
        self.queue[number] = {
            "tasks": [] if names else json.loads(body),
            "left": self.polls,
            "file_upload_ids": ids,
        }
        if self.lost_answers:
            self.lost_answers -= 1
            while self._poll(number)[1]["status"] != "completed":
                """The worker needs nobody who asks."""
            return 504, {"detail": "gateway timeout"}
        return 201, {"import": number}

    def _poll(self, number: int) -> tuple[int, Any]:
        job = self.queue[number]
        told = {"id": number, "project": 7, "error": None, "task_count": 0, "file_upload_ids": []}
        if self.fails_with:
            return 200, {**told, "status": "failed", "error": self.fails_with}
        if self.is_stuck or job["left"] > 0:
            job["left"] -= 1
            return 200, {**told, "status": "in_progress" if job["left"] < self.polls - 1 else "created"}
        for task in job["tasks"]:
            stamp = {"updated_at": "2026-01-01T00:00:00Z", "total_annotations": 0}
            self.tasks.append({"id": next(self._ids), "data": task["data"], **stamp})
        count, job["tasks"] = len(job["tasks"]), []
        done = {"status": "completed", "task_count": count, "file_upload_ids": job["file_upload_ids"]}
        return 200, {**told, **done}

    def _page(self, page: int, size: int) -> tuple[int, Any]:
        size = min(size, self.page_limit)
        found = self.tasks[(page - 1) * size : page * size]
        if not found and page > 1:
            return 404, {"detail": "Invalid page."}
        if self.bare_lists:
            return 200, found
        return 200, {"tasks": found, "total": len(self.tasks)}


@contextlib.contextmanager
def serving(server: FakeEnterprise) -> Iterator[LabelStudioClient]:
    with answering(lambda method, address, _token, body: server.answer(method, address, body)) as url:
        yield LabelStudioClient(url, "a-token", timeout_s=0.1, backoff_s=0.01)


def draw(key: str, item: PushItem) -> Drawn:
    name = f"{key}-a.jpg"
    return {name: b"\xff\xd8\xff" + key.encode()}, lambda at: {"data": {"image": at[name], "item": key}}


def push(client: LabelStudioClient, store: Store, count: int, seat: str = "") -> None:
    push_items(client, store, 1, PROJECT, items(count), draw, silent, UploadedPictures(client), seat)


@pytest.mark.parametrize("bare_lists", [False, True])
def test_tasks_and_pictures_go_through_the_queue_of_enterprise(store: Store, bare_lists: bool) -> None:
    server = FakeEnterprise(bare_lists=bare_lists)
    with serving(server) as client:
        push(client, store, 60)
        push(client, store, 60)
    assert len(server.tasks) == len(server.files) == 60
    shown = {f"/data/{file}" for file in server.files.values()}
    assert {task["data"]["image"] for task in server.tasks} == shown
    assert set(store.remote.tasks(1, ProjectRole.RATING).values()) == {task["id"] for task in server.tasks}


def test_a_push_sends_chunks_and_lists_what_is_there_once_before_and_once_after(store: Store) -> None:
    server = FakeEnterprise(page_limit=1000)
    with serving(server) as client:
        push(client, store, 120)
    asked = [line.partition("?")[0] for line in server.asked if "/imports/" not in line]
    upload = ["POST /api/projects/7/import", "GET /api/projects/7/file-uploads"]
    chunk = [*upload, "POST /api/projects/7/import"]
    lists = ["GET /api/tasks/", "GET /api/projects/7/file-uploads"]
    assert asked == ["GET /api/tasks/", lists[1], *3 * chunk, *lists]
    assert [line.rpartition("?")[2] for line in server.asked if "file-uploads?all" in line] == [
        "all=true"
    ] * 2


def test_each_seat_has_tasks_of_its_own(store: Store) -> None:
    server = FakeEnterprise()
    with serving(server) as client:
        push(client, store, 2)
        push(client, store, 2, "ann@example.com")
    assert len({task["data"]["item"] for task in server.tasks}) == 4
    first, second = (
        set(store.remote.tasks(1, ProjectRole.RATING, s).values()) for s in ("", "ann@example.com")
    )
    assert len(first) == len(second) == 2
    assert not first & second


def test_an_import_whose_answer_is_lost_is_found_through_pages_shorter_than_asked_for(store: Store) -> None:
    server = FakeEnterprise(page_limit=7)
    server.lost_answers = 2
    with serving(server) as client:
        push(client, store, 30)
    assert len(server.tasks) == len(server.files) == 30


def test_an_import_that_fails_in_the_queue_gives_the_servers_reason(store: Store) -> None:
    server = FakeEnterprise()
    server.fails_with = 'Error at item 0: "overlay" key is expected'
    with serving(server) as client, pytest.raises(LabelStudioError, match='"overlay" key') as caught:
        client.import_tasks(7, [{}])
    assert caught.value.status == 400


def test_an_import_that_stands_still_in_the_queue_is_not_sent_again(store: Store) -> None:
    server = FakeEnterprise()
    server.is_stuck = True
    with serving(server) as client, pytest.raises(LabelStudioError, match="has been in_progress in the"):
        push(client, store, 3)
    assert len(server.queue) == 1


def test_a_new_project_that_is_not_listed_yet_is_made_once(store: Store) -> None:
    server = FakeEnterprise()
    settings = {"label_config": rating_config()}
    with serving(server) as client:
        made = ensure_project(client, store, 1, ProjectRole.RATING, "MAD", settings, "ann@example.com")
        again = ensure_project(client, store, 1, ProjectRole.RATING, "MAD", settings, "ann@example.com")
    assert made == again == store.remote.project(1, ProjectRole.RATING, "ann@example.com")
    assert sum(line == "POST /api/projects/" for line in server.asked) == 1


def test_a_list_that_gets_shorter_while_it_is_read_is_read_anew() -> None:
    there = [{"id": n} for n in range(10)]

    def get(page: int) -> Any:
        if page == 2 and there[0]["id"] == 0:
            del there[0]  # what was first on page 2 is now last on page 1
        found = there[(page - 1) * 4 : page * 4]
        return {"tasks": found, "total": len(there)}

    assert sorted(e["id"] for e in entries(get, "tasks")) == list(range(10))


def test_pages_end_where_the_server_says_so() -> None:
    def by_404(page: int) -> Any:
        if page == 3:
            raise LabelStudioError("Invalid page.", 404)
        return {"tasks": [{"id": page}]}

    assert [e["id"] for e in entries(by_404, "tasks")] == [1, 2]
    assert [e["id"] for e in entries(lambda _page: [{"id": 5}, {"id": 6}], "tasks")] == [5, 6]
    assert list(entries(lambda _page: {"tasks": [], "total": 0}, "tasks")) == []

    def absent(page: int) -> Any:
        raise LabelStudioError("Not found.", 404)

    with pytest.raises(LabelStudioError):
        list(entries(absent, "tasks"))
