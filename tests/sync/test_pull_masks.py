"""Pulling label maps from a real Label Studio: pixel by pixel, and what is told of those that are none."""

import hashlib
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from mad_backend.core.labels import VOID
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.answers import regions_of
from mad_backend.store.store import Store
from sync.pull import PullProgress
from sync.pull_masks import pull_masks
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.rating_tasks import CountingClient
from tests.sync.test_push import LABELS, items, picture, silent


def size_of(_image_id: str) -> tuple[int, int]:
    return 60, 80


def push_masks(running: RunningLabelStudio, store: Store, count: int) -> dict[str, int]:
    push_segmentation(
        running.admin, store, 1, "Round 1", LABELS, items(count), model_version="f0", report=silent
    )
    return store.remote.tasks(1, ProjectRole.SEGMENTATION)


def masks(running: RunningLabelStudio, store: Store, root: Path) -> PullProgress:
    return pull_masks(running.admin, store, 1, LABELS, size_of=size_of, root=root)


def test_drawn_masks_come_back_pixel_exact_and_once(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    tasks = push_masks(label_studio, store, 3)
    drawn = np.random.default_rng(1).choice(np.array([0, 1, 2, VOID], np.uint8), (60, 80))
    author = label_studio.raters[0]
    author.create_annotation(tasks["secret-name-001"], regions_of(drawn, LABELS), lead_time=61.5)
    expected = PullProgress(1, 3, {"ann@example.com": 1})
    assert masks(label_studio, store, tmp_path / "masks") == expected
    mask = store.remote.masks(1)["secret-name-001"]
    with Image.open(mask.path) as file:
        assert file.mode == "L"
        assert np.array_equal(np.asarray(file), drawn)
    assert mask.lead_time_s == 61.5
    assert mask.sha256 == hashlib.sha256(Path(mask.path).read_bytes()).hexdigest()
    assert "secret" not in mask.path.removeprefix(str(tmp_path))
    written = Path(mask.path).stat().st_mtime_ns
    assert masks(label_studio, store, tmp_path / "masks") == expected
    fresh_process = Store(str(store.remote._db.engine.url))
    assert masks(label_studio, fresh_process, tmp_path / "masks") == expected
    fresh_process.close()
    assert Path(mask.path).stat().st_mtime_ns == written
    assert [p.name for p in (tmp_path / "masks").iterdir()] == [Path(mask.path).name]


def test_an_untouched_prediction_and_a_corrected_early_region_become_what_was_meant(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    task = push_masks(label_studio, store, 1)["secret-name-000"]
    predicted = regions_of(picture(0)[1], LABELS)
    grown = np.zeros((60, 80), np.uint8)
    grown[10:50, 10:60] = 1
    cat = regions_of(grown, LABELS)[0]
    opened = requests.get(
        f"{label_studio.server.url}/api/tasks/{task}",
        headers={"Authorization": f"Token {label_studio.server.token}"},
        timeout=30,
    ).json()
    label_studio.raters[0].create_annotation(
        task, [cat, *predicted[1:]], parent_prediction=opened["predictions"][0]["id"]
    )
    assert masks(label_studio, store, tmp_path).done == 1
    wanted = picture(0)[1].copy()
    wanted[10:50, 10:60] = 1
    found = np.asarray(Image.open(store.remote.masks(1)["secret-name-000"].path))
    overlap = (picture(0)[1] == 2) & (grown == 1)
    assert (found[~overlap] == wanted[~overlap]).all()
    assert (found[45:50, 40:60] == 1).all()


def test_the_latest_map_counts_and_one_that_is_gone_disappears_with_its_file(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    task = push_masks(label_studio, store, 1)["secret-name-000"]
    ann, bob, *_ = label_studio.raters
    small, large = np.zeros((60, 80), np.uint8), np.ones((60, 80), np.uint8)
    small[0, 0] = 1
    first = ann.create_annotation(task, regions_of(small, LABELS))
    assert masks(label_studio, store, tmp_path).by_person == {"ann@example.com": 1}
    second = bob.create_annotation(task, regions_of(large, LABELS))
    progress = masks(label_studio, store, tmp_path)
    assert progress.by_person == {"bob@example.com": 1}
    (told,) = progress.problems
    assert (told.task_id, told.text) == (
        task,
        "ann@example.com drew it too; the latest counts, by bob@example.com",
    )
    changed = ann.update_annotation(first.annotation_id, regions_of(np.full((60, 80), 2, np.uint8), LABELS))
    masks(label_studio, store, tmp_path)
    kept = store.remote.masks(1)["secret-name-000"]
    assert (kept.annotator, kept.annotation_id) == ("ann@example.com", first.annotation_id)
    assert (kept.annotator_id, kept.drawn_at) == (first.user_id, changed.updated_at)
    assert (np.asarray(Image.open(kept.path)) == 2).all()
    ann.delete_annotation(first.annotation_id)
    masks(label_studio, store, tmp_path)
    assert store.remote.masks(1)["secret-name-000"].annotation_id == second.annotation_id
    bob.delete_annotation(second.annotation_id)
    assert masks(label_studio, store, tmp_path) == PullProgress(0, 1, {})
    assert store.remote.masks(1) == {}
    assert list(tmp_path.glob("*.png")) == []


def test_what_is_no_map_is_told_every_time_until_it_is_mended(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    tasks = push_masks(label_studio, store, 4)
    ann, bob, *_ = label_studio.raters
    ones = regions_of(np.ones((60, 80), np.uint8), LABELS)
    ann.create_annotation(tasks["secret-name-000"], [])
    ann.create_annotation(tasks["secret-name-001"], regions_of(np.ones((5, 5), np.uint8), LABELS))
    for rater in (ann, bob):
        rater.create_annotation(tasks["secret-name-002"], [], was_cancelled=True)
    sound = ann.create_annotation(tasks["secret-name-003"], ones)
    for _ in range(2):
        progress = masks(label_studio, store, tmp_path)
        assert (progress.done, progress.total) == (1, 4)
        told = {p.image_id[-3:]: p.text for p in progress.problems}
        assert set(told) == {"000", "001", "002"}
        assert "by ann@example.com is not a mask: nothing was painted" in told["000"]
        assert "the image has 60, 80" in told["001"]
        assert told["002"] == (
            "skipped by ann@example.com, bob@example.com; nobody drew it: somebody else has to"
        )
    ann.update_annotation(sound.annotation_id, [])
    bob.create_annotation(tasks["secret-name-000"], ones)
    progress = masks(label_studio, store, tmp_path)
    assert list(store.remote.masks(1)) == ["secret-name-000"]
    assert {p.image_id[-3:] for p in progress.problems} == {"000", "001", "002", "003"}


def test_a_deleted_task_takes_its_map_along_and_a_lost_file_is_written_again(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    tasks = push_masks(label_studio, store, 3)
    ones = regions_of(np.ones((60, 80), np.uint8), LABELS)
    for task in list(tasks.values())[:2]:
        label_studio.raters[0].create_annotation(task, ones)
    assert masks(label_studio, store, tmp_path).done == 2
    lost = Path(store.remote.masks(1)["secret-name-000"].path)
    lost.unlink()
    client = CountingClient(label_studio)
    assert pull_masks(client, store, 1, LABELS, size_of=size_of, root=tmp_path).done == 2
    assert lost.exists()
    client.asked.clear()
    assert pull_masks(client, store, 1, LABELS, size_of=size_of, root=tmp_path).done == 2
    assert len(client.asked) == 2, "the project, and what changed there"
    label_studio.admin.delete_task(tasks["secret-name-001"])
    progress = masks(label_studio, store, tmp_path)
    assert (progress.done, progress.total) == (1, 3)
    assert [p.image_id for p in progress.problems] == ["secret-name-001"]
    assert list(store.remote.masks(1)) == ["secret-name-000"]


def test_a_map_whose_author_was_deleted_counts_without_a_number_of_theirs(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    task = push_masks(label_studio, store, 1)["secret-name-000"]
    server = label_studio.server
    yan = server.client(server.create_user("yan@example.com", label_studio.password))
    drawn = yan.create_annotation(task, regions_of(np.ones((60, 80), np.uint8), LABELS))
    label_studio.admin.send("DELETE", f"/api/users/{drawn.user_id}/", "deleting a user")
    assert masks(label_studio, store, tmp_path).by_person == {"deleted user": 1}
    assert store.remote.masks(1)["secret-name-000"].annotator_id is None


def test_a_region_without_label_is_noted_with_the_mask(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    task = push_masks(label_studio, store, 1)["secret-name-000"]
    cat, dog = regions_of(picture(0)[1], LABELS)[:2]
    del cat["value"]["bitmasklabels"]
    label_studio.raters[0].create_annotation(task, [cat, dog])
    assert masks(label_studio, store, tmp_path).done == 1
    assert store.remote.masks(1)["secret-name-000"].notes == ("region 1 has no label and was left out",)
