"""Pushing to a real Label Studio: what arrives, and that repeating after anything adds nothing."""

import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import requests

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet, RgbImage
from mad_backend.core.records import ProjectRole
from mad_backend.errors import ImageError, LabelStudioError
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.push import Drawn, PushItem, _chunks, _drawn, _Parcel
from sync.rating_project import push_rating
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio

LABELS = LabelSet(
    "pets",
    (LabelClass("background", (0, 0, 0)), LabelClass("cat", (200, 0, 0)), LabelClass("dog", (0, 200, 0))),
)

MIB = 2**20


def picture(n: int) -> tuple[RgbImage, LabelMap]:
    """Photo `n` (60, 80, 3) and the target's label map of it."""
    rng = np.random.default_rng(n)
    label_map = np.zeros((60, 80), np.uint8)
    label_map[10:40, 10 + n % 20 : 50] = 1
    label_map[30:50, 40:70] = 2
    label_map[:3] = VOID
    return rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), label_map


def items(count: int) -> list[PushItem]:
    return [PushItem(f"secret-name-{n:03d}", partial(picture, n)) for n in range(count)]


def silent(_done: int, _total: int) -> None:
    """No progress shown."""


def raw_task(running: RunningLabelStudio, task_id: int) -> str:
    """Everything the server knows about a task, as text."""
    headers = {"Authorization": f"Token {running.server.token}"}
    return requests.get(f"{running.server.url}/api/tasks/{task_id}", headers=headers, timeout=30).text


def shelf(running: RunningLabelStudio, store: Store) -> int:
    """The project that holds the pictures of the rating project."""
    key = "mad-" + store.remote.item_key(1, ProjectRole.RATING, "\npictures")
    (found,) = running.admin.projects_with(key)
    return found.project_id


def test_rating_tasks_arrive_with_pictures_and_nothing_that_tells(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    steps: list[tuple[int, int]] = []
    project = push_rating(
        label_studio.admin, store, 1, "Round 1", LABELS, items(30), report=lambda *s: steps.append(s)
    )
    tasks = store.remote.tasks(1, ProjectRole.RATING)
    assert store.remote.project(1, ProjectRole.RATING) == project
    assert sorted(tasks) == [f"secret-name-{n:03d}" for n in range(30)]
    assert {t.task_id for t in label_studio.admin.tasks(project.project_id)} == set(tasks.values())
    assert steps == [(0, 30), (30, 30), (30, 30)]
    text = raw_task(label_studio, tasks["secret-name-004"])
    assert "secret" not in text
    assert "cat" in text
    key = store.remote.item_key(1, ProjectRole.RATING, "secret-name-004")
    addresses = label_studio.admin.uploads(shelf(label_studio, store))
    headers = {"Authorization": f"Token {label_studio.tokens[0]}"}
    photo = requests.get(label_studio.server.url + addresses[f"{key}-a.jpg"], headers=headers, timeout=30)
    assert photo.content[:3] == b"\xff\xd8\xff"


def test_second_push_adds_nothing_and_does_not_load_an_image(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    first = push_rating(label_studio.admin, store, 1, "Round 1", LABELS, items(4), report=silent)
    before = store.remote.tasks(1, ProjectRole.RATING)

    def never() -> tuple[RgbImage, LabelMap]:
        raise AssertionError("loaded an image that was already sent")

    again = [PushItem(item.image_id, never) for item in items(4)]
    assert push_rating(label_studio.admin, store, 1, "Round 1", LABELS, again, report=silent) == first
    assert store.remote.tasks(1, ProjectRole.RATING) == before
    assert len(label_studio.admin.tasks(first.project_id)) == 4
    assert len(label_studio.admin.uploads(shelf(label_studio, store))) == 8


def test_deleted_tasks_come_back_and_other_tasks_keep_their_place(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    project = push_rating(label_studio.admin, store, 1, "Round 1", LABELS, items(4), report=silent)
    before = store.remote.tasks(1, ProjectRole.RATING)
    # Not the newest, whose id Label Studio on SQLite gives to the next task.
    gone = min(before, key=lambda image_id: before[image_id])
    label_studio.admin.delete_task(before[gone])
    push_rating(label_studio.admin, store, 1, "Round 1", LABELS, items(4), report=silent)
    after = store.remote.tasks(1, ProjectRole.RATING)
    assert [i for i in before if before[i] != after[i]] == [gone]
    assert len(label_studio.admin.tasks(project.project_id)) == 4
    assert len(label_studio.admin.uploads(shelf(label_studio, store))) == 8


def test_a_deleted_project_is_made_anew(label_studio: RunningLabelStudio, store: Store) -> None:
    project = push_rating(label_studio.admin, store, 1, "Round 1", LABELS, items(2), report=silent)
    label_studio.admin.delete_project(project.project_id)
    other = push_rating(label_studio.admin, store, 1, "Round 1", LABELS, items(2), report=silent)
    assert other.project_id != project.project_id
    assert len(label_studio.admin.tasks(other.project_id)) == 2


def test_a_project_whose_row_was_lost_is_found_by_its_key(
    label_studio: RunningLabelStudio, tmp_path: Path, store: Store
) -> None:
    project = push_rating(label_studio.admin, store, 1, "Round 1", LABELS, items(2), report=silent)
    label_studio.admin.patch_project(project.project_id, title="renamed by a person")
    lost = tmp_path / "mad.sqlite3"
    with sqlite3.connect(lost) as rows:
        rows.execute("delete from remote_projects")
        rows.execute("delete from remote_tasks")
    rows.close()
    found = push_rating(label_studio.admin, store, 1, "Round 1", LABELS, items(2), report=silent)
    assert (found.project_id, found.title) == (project.project_id, "renamed by a person")
    assert len(label_studio.admin.tasks(project.project_id)) == 2


def test_changed_labels_are_refused(label_studio: RunningLabelStudio, store: Store) -> None:
    project = push_segmentation(
        label_studio.admin, store, 1, "Round 1", LABELS, [], model_version="m", report=silent
    )
    there = label_studio.admin.project(project.project_id)
    assert there is not None
    label_studio.admin.patch_project(
        project.project_id, label_config=there.label_config.replace('"cat"', '"lynx"')
    )
    with pytest.raises(LabelStudioError, match="labelling interface was changed"):
        push_segmentation(
            label_studio.admin, store, 1, "Round 1", LABELS, [], model_version="m", report=silent
        )


def test_twins_of_an_interrupted_import_are_removed_but_never_peoples_work(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    client = label_studio.admin
    project = push_rating(client, store, 1, "Round 1", LABELS, items(2), report=silent)
    keys = [store.remote.item_key(1, ProjectRole.RATING, f"secret-name-{n:03d}") for n in range(2)]
    client.import_tasks(
        project.project_id,
        [{"data": {"image": "/x", "overlay": "/x", "legend": "", "item": k}} for k in keys],
    )
    worked_on = client.tasks(project.project_id)[-1]
    client.create_annotation(worked_on.task_id, [])
    push_rating(client, store, 1, "Round 1", LABELS, items(2), report=silent)
    left = client.tasks(project.project_id)
    assert sorted(str(t.item) for t in left) == sorted(keys)
    assert worked_on.task_id in {t.task_id for t in left}


def test_segmentation_tasks_open_with_the_targets_masks(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    project = push_segmentation(
        label_studio.admin, store, 1, "Round 1", LABELS, items(3), model_version="f0", report=silent
    )
    there = label_studio.admin.project(project.project_id)
    assert there is not None
    assert there.model_version == "f0"
    opened = requests.get(
        f"{label_studio.server.url}/api/projects/{project.project_id}/next",
        headers={"Authorization": f"Token {label_studio.tokens[0]}"},
        timeout=30,
    ).json()
    (prediction,) = opened["predictions"]
    assert [r["value"]["bitmasklabels"] for r in prediction["result"]] == [["cat"], ["dog"], ["void"]]
    push_segmentation(
        label_studio.admin, store, 1, "Round 1", LABELS, items(3), model_version="f0", report=silent
    )
    assert raw_task(label_studio, opened["id"]).count('"model_version":"f0"') == 1


def test_a_server_that_is_gone_leaves_nothing_half_recorded(store: Store) -> None:
    client = LabelStudioClient("http://127.0.0.1:9", "t", backoff_s=0.01)
    with pytest.raises(LabelStudioError, match="did not answer"):
        push_rating(client, store, 1, "Round 1", LABELS, items(2), report=silent)
    assert store.remote.project(1, ProjectRole.RATING) is None


def parcel(n: int, size: int) -> _Parcel:
    return _Parcel(f"key-{n}", {}, lambda _at: {}, size)


def test_chunks_are_bounded_by_number_and_by_bytes() -> None:
    def sizes(*bytes_each: int) -> list[int]:
        return [len(c) for c in _chunks(parcel(n, size) for n, size in enumerate(bytes_each))]

    assert sizes() == []
    assert sizes(*[1000] * 120) == [50, 50, 20]
    assert sizes(*[6 * MIB] * 5) == [2, 2, 1]
    assert sizes(MIB, 100 * MIB, MIB, MIB) == [1, 1, 2]


@pytest.mark.parametrize(("size", "at_most"), [(1000, 51), (5 * MIB, 5)])
def test_as_much_is_drawn_ahead_as_makes_a_chunk(size: int, at_most: int) -> None:
    begun: list[str] = []

    def draw(key: str, item: PushItem) -> Drawn:
        begun.append(key)
        return {"a.jpg": bytes(size)}, lambda at: {"data": {"image": at["a.jpg"]}}

    wanted = [(item.image_id, item) for item in items(200)]
    drawn = _drawn(draw, wanted)
    taken = [next(drawn).key for _ in range(20)]
    time.sleep(0.2)
    assert taken == [key for key, _ in wanted[:20]]
    assert 20 < len(begun) < 20 + at_most + 1
    drawn.close()
    settled = len(begun)
    time.sleep(0.05)
    assert len(begun) == settled


def test_an_item_that_cannot_be_drawn_ends_the_push_with_its_error(store: Store) -> None:
    def draw(key: str, item: PushItem) -> Drawn:
        raise ImageError("image secret-name-001 cannot be read")

    with closing(_drawn(draw, [("key", items(1)[0])])) as drawn, pytest.raises(ImageError, match="001"):
        next(drawn)
