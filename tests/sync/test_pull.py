"""Pulling from a real Label Studio what three people answered there."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from mad_backend.core.labels import VOID
from mad_backend.core.records import ProjectRole
from mad_backend.errors import LabelStudioError, StoreError
from mad_backend.label_studio.results import regions_of
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pull import PullProgress, pull_masks, pull_ratings
from sync.rating_project import push_rating
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.test_push import LABELS, items, picture, silent


def answer(grade: str) -> list[dict[str, Any]]:
    value = {"choices": [grade]}
    return [{"from_name": "quality", "to_name": "overlay", "type": "choices", "value": value}]


def rate_all(client: LabelStudioClient, project_id: int, grade: str) -> int:
    """Rates what the label stream gives, until it gives nothing; how many that were."""
    count = 0
    while task := client.next_task(project_id):
        client.create_annotation(task.task_id, answer(grade), lead_time=2.5)
        count += 1
    return count


def push(running: RunningLabelStudio, store: Store, count: int) -> dict[str, int]:
    push_rating(running.admin, store, 1, "Round 1", LABELS, items(count), report=silent)
    return store.remote.tasks(1, ProjectRole.RATING)


def test_three_people_rate_through_the_label_stream(label_studio: RunningLabelStudio, store: Store) -> None:
    push(label_studio, store, 3)
    project = store.remote.project(1, ProjectRole.RATING)
    assert project
    assert pull_ratings(label_studio.admin, store, 1) == PullProgress(0, 3, {})
    counts = [rate_all(c, project.project_id, g) for c, g in zip(label_studio.raters[:3], "123", strict=True)]
    assert counts == [3, 3, 3]
    emails = label_studio.emails[:3]
    expected = PullProgress(3, 3, dict.fromkeys(emails, 3))
    assert pull_ratings(label_studio.admin, store, 1) == expected
    found = store.remote.ratings(1)
    assert {(r.image_id, r.rater, r.score) for r in found} == {
        (f"secret-name-{n:03d}", email, score)
        for n in range(3)
        for email, score in zip(emails, (1, 2, 3), strict=True)
    }
    assert {r.lead_time_s for r in found} == {2.5}
    assert pull_ratings(label_studio.admin, store, 1) == expected
    fresh_process = Store(str(store.remote._db.engine.url))
    assert pull_ratings(label_studio.admin, fresh_process, 1) == expected
    assert fresh_process.remote.ratings(1) == found
    fresh_process.close()


def test_changed_and_deleted_ratings_are_followed(label_studio: RunningLabelStudio, store: Store) -> None:
    task = push(label_studio, store, 2)["secret-name-001"]
    ann, bob, *_ = label_studio.raters
    first = ann.create_annotation(task, answer("2"))
    second = bob.create_annotation(task, answer("4"))
    assert pull_ratings(label_studio.admin, store, 1, wanted=2).done == 1
    ann.update_annotation(first.annotation_id, answer("5"))
    pull_ratings(label_studio.admin, store, 1, wanted=2)
    assert [r.score for r in store.remote.ratings(1)] == [5, 4]
    bob.delete_annotation(second.annotation_id)
    assert pull_ratings(label_studio.admin, store, 1, wanted=2) == PullProgress(0, 2, {"ann@example.com": 1})
    label_studio.admin.delete_task(task)
    assert pull_ratings(label_studio.admin, store, 1, wanted=2) == PullProgress(0, 2, {})
    assert store.remote.ratings(1) == []


def test_one_veto_makes_an_image_done(label_studio: RunningLabelStudio, store: Store) -> None:
    task = push(label_studio, store, 1)["secret-name-000"]
    label_studio.raters[0].create_annotation(task, answer("ood"))
    assert pull_ratings(label_studio.admin, store, 1) == PullProgress(1, 1, {"ann@example.com": 1})
    assert [r.is_veto for r in store.remote.ratings(1)] == [True]


def test_skipped_empty_and_unreadable_answers_do_not_count(
    label_studio: RunningLabelStudio, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    task = push(label_studio, store, 1)["secret-name-000"]
    label_studio.raters[0].create_annotation(task, [], was_cancelled=True)
    label_studio.raters[1].create_annotation(task, [])
    odd = label_studio.raters[2].create_annotation(task, answer("7"))
    assert pull_ratings(label_studio.admin, store, 1) == PullProgress(0, 1, {})
    assert f"annotation {odd.annotation_id} left out" in caplog.text


def test_the_first_people_and_the_latest_answer_of_each_count_and_every_veto(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = push(label_studio, store, 2)
    ann, bob, cat, dan = label_studio.raters
    for task in tasks.values():
        for rater, grade in ((ann, "1"), (bob, "2"), (ann, "3"), (cat, "4")):
            rater.create_annotation(task, answer(grade))
    dan.create_annotation(tasks["secret-name-000"], answer("5"))
    dan.create_annotation(tasks["secret-name-001"], answer("ood"))
    assert pull_ratings(label_studio.admin, store, 1).done == 2
    by_image: dict[str, list[int | None]] = {}
    for r in store.remote.ratings(1):
        by_image.setdefault(r.image_id, []).append(r.score)
    assert by_image == {"secret-name-000": [3, 2, 4], "secret-name-001": [3, 2, 4, None]}


def test_tasks_deleted_and_pushed_anew_are_rated_anew(label_studio: RunningLabelStudio, store: Store) -> None:
    task = push(label_studio, store, 1)["secret-name-000"]
    label_studio.raters[0].create_annotation(task, answer("1"))
    assert pull_ratings(label_studio.admin, store, 1, wanted=1).done == 1
    label_studio.admin.delete_task(task)
    task = push(label_studio, store, 1)["secret-name-000"]
    assert pull_ratings(label_studio.admin, store, 1, wanted=1).done == 0
    label_studio.raters[1].create_annotation(task, answer("2"))
    assert pull_ratings(label_studio.admin, store, 1, wanted=1) == PullProgress(1, 1, {"bob@example.com": 1})


def test_pulling_what_was_never_pushed_or_was_deleted_is_an_error(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    with pytest.raises(StoreError, match="push before"):
        pull_ratings(label_studio.admin, store, 1)
    push(label_studio, store, 1)
    project = store.remote.project(1, ProjectRole.RATING)
    assert project
    label_studio.admin.delete_project(project.project_id)
    with pytest.raises(LabelStudioError, match="deleted"):
        pull_ratings(label_studio.admin, store, 1)


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
    author.create_annotation(tasks["secret-name-001"], regions_of(drawn, LABELS))
    expected = PullProgress(1, 3, {"ann@example.com": 1})
    assert masks(label_studio, store, tmp_path / "masks") == expected
    mask = store.remote.masks(1)["secret-name-001"]
    with Image.open(mask.path) as file:
        assert file.mode == "L"
        assert np.array_equal(np.asarray(file), drawn)
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


def test_corrections_deletions_and_the_latest_annotator_are_followed(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    task = push_masks(label_studio, store, 1)["secret-name-000"]
    ann, bob, *_ = label_studio.raters
    small, large = np.zeros((60, 80), np.uint8), np.ones((60, 80), np.uint8)
    small[0, 0] = 1
    first = ann.create_annotation(task, regions_of(small, LABELS))
    assert masks(label_studio, store, tmp_path).by_person == {"ann@example.com": 1}
    second = bob.create_annotation(task, regions_of(large, LABELS))
    assert masks(label_studio, store, tmp_path).by_person == {"bob@example.com": 1}
    ann.update_annotation(first.annotation_id, regions_of(np.full((60, 80), 2, np.uint8), LABELS))
    masks(label_studio, store, tmp_path)
    kept = store.remote.masks(1)["secret-name-000"]
    assert (kept.annotator, kept.annotation_id) == ("ann@example.com", first.annotation_id)
    assert (np.asarray(Image.open(kept.path)) == 2).all()
    ann.delete_annotation(first.annotation_id)
    masks(label_studio, store, tmp_path)
    assert store.remote.masks(1)["secret-name-000"].annotation_id == second.annotation_id
    bob.delete_annotation(second.annotation_id)
    assert masks(label_studio, store, tmp_path) == PullProgress(0, 1, {})


def test_masks_that_cannot_be_read_are_logged_and_not_done(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = push_masks(label_studio, store, 2)
    ann = label_studio.raters[0]
    ann.create_annotation(tasks["secret-name-000"], [])
    ann.create_annotation(tasks["secret-name-001"], regions_of(np.ones((5, 5), np.uint8), LABELS))
    assert masks(label_studio, store, tmp_path) == PullProgress(0, 2, {})
    assert "nothing was painted" in caplog.text
    assert "the image has 60, 80" in caplog.text


def test_a_region_without_label_is_noted_with_the_mask(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    task = push_masks(label_studio, store, 1)["secret-name-000"]
    cat, dog = regions_of(picture(0)[1], LABELS)[:2]
    del cat["value"]["bitmasklabels"]
    label_studio.raters[0].create_annotation(task, [cat, dog])
    assert masks(label_studio, store, tmp_path).done == 1
    assert store.remote.masks(1)["secret-name-000"].notes == ("region 1 has no label and was left out",)
