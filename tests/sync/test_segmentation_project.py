"""What a segmentation project holds on a real server: starts, further maps, and nothing that tells S from T."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet, RgbImage
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.composition import compose
from mad_backend.settings import SegmentationSettings
from mad_backend.store.store import Store
from sync.push import PushItem
from sync.segmentation_project import START, Starting, push_segmentation
from tests.conftest import RunningLabelStudio

LABELS = LabelSet(
    "pets",
    (LabelClass("background", (0, 0, 0)), LabelClass("cat", (200, 0, 0)), LabelClass("dog", (0, 200, 0))),
)


def picture(n: int) -> tuple[RgbImage, LabelMap]:
    """Photo `n` (60, 80, 3) and the target's map of it: a cat, and a speck of one pixel."""
    label_map = np.zeros((60, 80), np.uint8)
    label_map[10:40, 10 + n : 50] = 1
    label_map[55, 70] = 2
    return np.full((60, 80, 3), 40 + n, np.uint8), label_map


def items(count: int) -> list[PushItem]:
    return [PushItem(f"img-{n:02d}", partial(picture, n)) for n in range(count)]


def dogs(image_id: str, target: LabelMap) -> Starting:
    """Another model takes all cats for dogs."""
    other = np.where(target == 1, 2, 0).astype(np.uint8)
    return Starting(other, {"rival": other, "f0": target})


def push(running: RunningLabelStudio, store: Store, count: int, **options: Any) -> int:
    return push_segmentation(
        running.admin, store, 1, "Round 1", LABELS, items(count), model_version="f0",
        report=lambda _done, _total: None, **options,
    ).project_id  # fmt: skip


def predictions(running: RunningLabelStudio, store: Store, image_id: str) -> dict[str, list[dict[str, Any]]]:
    """Version -> regions of an image's task."""
    task_id = store.remote.tasks(1, ProjectRole.SEGMENTATION)[image_id]
    task = running.admin.get(f"/api/tasks/{task_id}", "reading a task")
    return {p["model_version"]: p["result"] for p in task["predictions"]}


def map_of(regions: list[dict[str, Any]]) -> LabelMap:
    return compose(regions, LABELS, 60, 80).label_map


def offered(running: RunningLabelStudio, project_id: int) -> list[dict[str, Any]]:
    """What the label stream gives an annotator to start from."""
    rater = running.raters[0]
    found: list[dict[str, Any]] = rater.get(f"/api/projects/{project_id}/next", "asking for a task")[
        "predictions"
    ]
    return found


def test_nothing_in_a_task_or_in_the_order_of_tasks_tells_what_an_image_is_for(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    project_id = push(label_studio, store, 12)
    pages = label_studio.admin.pages("/api/tasks/", "listing", {"project": project_id}, "tasks")
    tasks = sorted(pages, key=lambda task: task["id"])
    keys = [task["data"].pop("item") for task in tasks]
    assert keys == sorted(keys)
    by_image = store.remote.tasks(1, ProjectRole.SEGMENTATION)
    assert sorted(by_image, key=by_image.__getitem__) != sorted(by_image)
    for task, key in zip(tasks, keys, strict=True):
        assert list(task["data"]) == ["image"]
        assert f"{key}-a.jpg" in task["data"]["image"]
        assert not task["meta"]
    assert "img-" not in json.dumps(tasks)


def test_starts_of_several_models_have_one_version_and_the_others_their_models_names(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    asked: list[str] = []

    def starting(image_id: str, target: LabelMap) -> Starting:
        asked.append(image_id)
        return dogs(image_id, target)

    settings = SegmentationSettings(start_from="best", further=True)
    project_id = push(label_studio, store, 3, starting=starting, settings=settings)
    there = label_studio.admin.project(project_id)
    assert there
    assert there.model_version == START
    for n in range(3):
        cat = picture(n)[1] == 1
        given = predictions(label_studio, store, f"img-{n:02d}")
        assert sorted(given) == ["f0", "rival", START]
        assert np.array_equal(map_of(given[START]) == 2, cat)
        assert np.array_equal(map_of(given["f0"]), cat), "the speck is cleaned, in further maps too"
    (offer,) = offered(label_studio, project_id)
    assert offer["model_version"] == START
    assert sorted(asked) == ["img-00", "img-01", "img-02"]
    push(label_studio, store, 3, starting=starting, settings=settings)
    assert len(asked) == 3, "maps of tasks that are there were asked for again"


def test_with_none_annotators_start_from_nothing_and_further_maps_are_there_if_wanted(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    bare = SegmentationSettings(start_from="none")
    project_id = push(label_studio, store, 1, starting=lambda *_: Starting(None), settings=bare)
    assert offered(label_studio, project_id) == []
    assert predictions(label_studio, store, "img-00") == {}
    label_studio.admin.delete_project(project_id)
    more = SegmentationSettings(start_from="none", further=True)
    project_id = push(
        label_studio, store, 1, starting=lambda i, t: Starting(None, dogs(i, t).further), settings=more
    )
    assert offered(label_studio, project_id) == []
    assert sorted(predictions(label_studio, store, "img-00")) == ["f0", "rival"]


def test_tasks_sent_after_the_settings_changed_open_like_those_sent_before(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    project_id = push(label_studio, store, 1)
    best = SegmentationSettings(start_from="best")
    push(label_studio, store, 2, starting=lambda i, t: Starting(dogs(i, t).start), settings=best)
    there = label_studio.admin.project(project_id)
    assert there
    assert there.model_version == "f0"
    assert [list(predictions(label_studio, store, f"img-{n:02d}")) for n in range(2)] == [["f0"], ["f0"]]
    assert (map_of(predictions(label_studio, store, "img-01")["f0"]) == 2).any()
    label_studio.admin.delete_project(project_id)
    nothing = SegmentationSettings(start_from="none")
    project_id = push(label_studio, store, 1, starting=lambda *_: Starting(None), settings=nothing)
    (without,) = store.remote.tasks(1, ProjectRole.SEGMENTATION).values()
    push(label_studio, store, 2)
    label_studio.admin.delete_task(without)
    assert [p["model_version"] for p in offered(label_studio, project_id)] == ["f0"]


def test_predictions_of_a_task_share_its_budget_of_bytes(
    label_studio: RunningLabelStudio, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(3)

    def noise(_image_id: str, target: LabelMap) -> Starting:
        maps = [rng.choice(np.array([0, 1, 2, VOID], np.uint8), target.shape) for _ in range(3)]
        return Starting(target, {f"noisy-{n}": label_map for n, label_map in enumerate(maps)})

    settings = SegmentationSettings(further=True, min_region=1, max_bytes=10_000)
    with caplog.at_level("INFO", logger="sync.segmentation_project"):
        push(label_studio, store, 1, starting=noise, settings=settings)
    given = predictions(label_studio, store, "img-00")
    assert sorted(given) == ["f0", "noisy-0", "noisy-1", "noisy-2"]
    assert np.array_equal(map_of(given["f0"]), picture(0)[1])
    assert len(json.dumps(list(given.values()))) <= 10_000
    assert "image img-00: noisy-0: " in caplog.text
