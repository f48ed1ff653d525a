"""A real Label Studio and a real `mad serve`: predictions for 300 tasks, a hot swap under load, a rollback, a crash."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import requests
from playwright.sync_api import Page

from sync.ml_backends import TITLE, backends, stored_predictions
from tests.sync import story_world, test_screens
from tests.sync.story_world import (
    CONFIG,
    GERMAN,
    HINT,
    KNOWN,
    LABELS,
    TASKS,
    WAIT_S,
    World,
    drawn,
    expected,
    labels_of,
    wait_for,
)
from tests.sync.test_screens import open_stream, picture_places, wait_for_color

world, running = story_world.world, story_world.running
browser, page, shots = test_screens.browser, test_screens.page, test_screens.shots


def check(world: World, task: dict[str, Any], version: str, names: Mapping[str, int]) -> None:
    """One prediction of `version`, which says what the model says."""
    (found,) = [p for p in task["predictions"] if p["model_version"] == version]
    assert np.array_equal(drawn(found["result"], names), expected(world.picture_of(task), version))


OURS = {name: n for n, name in enumerate(LABELS.names)}


def test_300_tasks_have_one_prediction_each_of_what_the_model_says(running: World) -> None:

    running.retrieve(running.ours)
    tasks = running.tasks(running.ours)
    assert [len(task["predictions"]) for task in tasks] == [1] * TASKS
    for task in tasks:
        check(running, task, "scenes@0", OURS)
    # What is there already is not asked for again.
    running.retrieve(running.ours)
    assert stored_predictions(running.admin, running.ours) == {"scenes@0": TASKS}


def test_another_team_s_uploads_are_answered_in_their_own_labels(running: World) -> None:
    first = running.tasks(running.theirs)[0]
    opened = running.opened(running.theirs, first["id"])
    check(running, opened, "scenes@0", GERMAN)
    assert {r["from_name"] for r in opened["predictions"][0]["result"]} == {"maske"}
    assert {r["to_name"] for r in opened["predictions"][0]["result"]} == {"bild"}
    check(running, running.next_task(1, running.theirs), "scenes@0", GERMAN)
    running.retrieve(running.theirs)
    for task in running.tasks(running.theirs):
        assert len(task["predictions"]) == 1
        check(running, task, "scenes@0", GERMAN)


def test_an_annotator_sees_the_prediction(running: World, page: Page, shots: Path) -> None:
    open_stream(page, running.label_studio, running.theirs, HINT)
    (place,) = picture_places(page, 1)
    task = running.next_task(0, running.theirs)
    rgb = running.picture_of(task)
    said = expected(rgb, running.served())
    for class_id, column, row in ((said[30, 40], 40, 30), (said[340, 460], 460, 340)):
        color, grey = np.array(LABELS.classes[class_id].color), rgb[row, column]
        wait_for_color(page, place, column, row, tuple((0.6 * color + 0.4 * grey).astype(int).tolist()))
    page.screenshot(path=shots / "ml-backend.png")


@dataclass
class Load:
    """What came back to each thread, in order: an answer's version; `failed` has the answers that were none."""

    predicted: list[str] = field(default_factory=list)
    predicted_beside: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def answers(self) -> list[list[str]]:
        return [self.predicted, self.predicted_beside, self.named, self.opened]


@contextmanager
def under_load(world: World) -> Iterator[Load]:
    """Threads that ask `mad serve` for predictions and versions, and Label Studio for tasks, one after the other."""
    load, ended = Load(), threading.Event()
    body = {
        "tasks": [{"id": t["id"], "data": t["data"]} for t in world.tasks(world.ours)[:5]],
        "label_config": CONFIG,
    }

    def predict(told: list[str]) -> None:
        results = world.ask("/predict", body).json()["results"]
        versions = {r["model_version"] for r in results}
        assert (len(results), len(versions)) == (5, 1), versions
        for result in results:
            assert labels_of(result["result"]) <= KNOWN[result["model_version"]]
            assert result["result"]
        told.extend(versions)

    def setup() -> None:
        load.named.append(world.served())
        time.sleep(0.01)

    def open_ours() -> None:
        found = world.next_task(2, world.ours)["predictions"]
        (version,) = {p["model_version"] for p in found}
        assert all(labels_of(p["result"]) <= KNOWN[version] for p in found)
        load.opened.append(version)

    def go_on(work: Callable[[], None]) -> None:
        while not ended.is_set():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whatever failed is what the test wants to know
                load.failed.append(repr(error))

    works = (partial(predict, load.predicted), partial(predict, load.predicted_beside), setup, open_ours)
    threads = [threading.Thread(target=go_on, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        ended.set()
        for thread in threads:
            thread.join(WAIT_S)


def grows(answers: list[str], by: int, version: str) -> Callable[[], bool]:
    """Whether `by` more answers have come, the last of them of `version`."""
    begin = len(answers)
    return lambda: len(answers) >= begin + by and answers[-1] == version


def test_a_hot_swap_and_a_rollback_fail_no_request_and_mix_no_versions(running: World) -> None:
    with under_load(running) as load:
        for version in ("scenes@1", "scenes@0"):
            running.promote(version)
            wait_for(lambda v=version: running.served() == v, lambda: str(load))
            # What /setup names, answers have from now on.
            answer = running.ask("/predict", {"tasks": [{"id": 1, "data": {}}], "label_config": CONFIG})
            assert {r["model_version"] for r in answer.json()["results"]} == {version}
            for answers in load.answers:
                wait_for(grows(answers, 3, version), lambda: str(load))
    assert load.failed == []
    for answers in load.answers:
        changes = [b for a, b in zip(["", *answers], answers, strict=False) if a != b]
        assert changes in (["scenes@0", "scenes@1", "scenes@0"], ["scenes@1", "scenes@0"])


def test_label_studio_predicts_anew_what_is_opened_after_a_promotion(running: World) -> None:
    for version in ("scenes@0", "scenes@1"):
        running.promote(version)
        wait_for(lambda v=version: running.served() == v, lambda: running.log)
        task = running.next_task(3, running.ours)
    assert {p["model_version"] for p in task["predictions"]} == {"scenes@1"}
    check(running, task, "scenes@1", OURS)
    (backend,) = backends(running.admin, running.ours)
    assert backend.model_version == "scenes@1"
    project = running.admin.project(running.ours)
    assert project
    assert project.model_version == TITLE
    stored = running.opened(running.ours, task["id"])["predictions"]
    assert {p["model_version"] for p in stored} == {"scenes@0", "scenes@1"}


def test_a_killed_backend_leaves_tasks_open_and_is_back_after_its_restart(running: World) -> None:
    version, killed = running.served(), running.process
    assert running.next_task(1, running.theirs)["predictions"]
    assert killed
    killed.kill()
    killed.wait()
    wait_for(lambda: not answers_at(running.url), lambda: "a web worker outlives its supervisor")
    began = time.monotonic()
    task = running.next_task(1, running.theirs)
    assert task["predictions"] == []
    assert running.opened(running.theirs, task["id"])["id"] == task["id"]
    assert time.monotonic() - began < WAIT_S / 4
    assert [b.state for b in backends(running.admin, running.theirs)] == ["DI"]
    running.serve()
    assert [b.state for b in backends(running.admin, running.theirs)] == ["CO"]
    check(running, running.next_task(1, running.theirs), version, GERMAN)


def answers_at(url: str) -> bool:
    try:
        requests.get(f"{url}/health", timeout=2)
    except requests.ConnectionError:
        return False
    return True
