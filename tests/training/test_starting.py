"""What annotators start from, on the scenes with a model that is planted better at one class."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mad_backend.core.labels import LabelMap
from mad_backend.core.testset import main_foreground
from tests.training.conftest import MakeProject, settings_of, write_answers
from training.project import Project
from training.scanning import scan_pool
from training.scenes import BALLOON, TREE
from training.starting import best_models, prepare_starts, starting_maps


def without_balloons(label_map: LabelMap) -> LabelMap:
    return np.where(label_map == BALLOON, 0, label_map).astype(np.uint8)


def knows_trees(truth: LabelMap, n: int) -> LabelMap:
    """Trees as they are, everything else far off, never a balloon."""
    moved = np.roll(truth, 40, axis=1)
    moved[moved == TREE] = 0
    moved[truth == TREE] = TREE
    return without_balloons(moved)


def nearly_right(truth: LabelMap, n: int) -> LabelMap:
    return without_balloons(np.roll(truth, 4, axis=1))


@pytest.fixture(scope="module")
def rivals(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The project's models, with two competitors of which one knows trees."""
    root = tmp_path_factory.mktemp("rivals")
    write_answers(scenes, root / "trees", knows_trees)
    write_answers(scenes, root / "near", nearly_right)
    competing = {name: {"kind": "folder", "path": str(root / name)} for name in ("trees", "near")}
    return settings_of(scenes, scenes)["models"] | {"competing": competing}


def started(make: MakeProject, models: dict[str, Any], **segmentation: object) -> Project:
    """A project whose pool was scanned and whose models were compared, as at the end of PREDICTING."""
    project = make(models=models, segmentation=segmentation)
    target = project.current_target()
    project.store.versions.record(target.version, 0, None, target.created_at)
    scan_pool(project, target)
    prepare_starts(project, lambda *_: None)
    return project


def target_map(project: Project, image_id: str) -> LabelMap:
    rgb = project.reader.rgb(project.pool[image_id])
    with project.predictions.open(project.target_key(project.current_target())) as pack:
        return project.grid.restore(pack.read(image_id), *rgb.shape[:2])


def stored_map(project: Project, name: str, image_id: str, like: LabelMap) -> LabelMap:
    with project.predictions.open(project.competitor_keys()[name]) as pack:
        return project.grid.restore(pack.read(image_id), *like.shape)


def test_an_image_starts_from_the_model_that_is_best_at_its_main_class(
    make_project: MakeProject, rivals: dict[str, Any]
) -> None:
    project = started(make_project, rivals, start_from="best")
    best = best_models(project)
    in_truth = set(np.unique([item.truth.read() for item in project.t0_dev]).tolist()) - {BALLOON}
    assert TREE in in_truth
    assert best == {k: "trees" if k == TREE else "near" for k in sorted(in_truth)}
    chosen = set()
    with starting_maps(project, "scenes@0") as maps:
        for n, image_id in enumerate(project.pool):
            # Every third as if the target saw one large tree.
            target = target_map(project, image_id) if n % 3 else np.full((192, 256), TREE, np.uint8)
            given = maps(image_id, target)
            assert given.further == {}
            main = main_foreground(target, project.labels)
            name = best[main] if main in best and main != 0 else None
            wanted = stored_map(project, name, image_id, target) if name else target
            assert given.start is not None
            assert np.array_equal(given.start, wanted), (image_id, main, name)
            chosen.add(name)
        nothing_found = np.zeros((192, 256), np.uint8)
        assert maps(image_id, nothing_found).start is nothing_found
        balloon = np.full((192, 256), BALLOON, np.uint8)  # no model has an IoU for it
        assert maps(image_id, balloon).start is balloon
        tree = np.full((192, 256), TREE, np.uint8)
        assert maps("pool/never-seen", tree).start is tree
    assert {"trees", "near"} <= chosen


def test_further_maps_are_those_of_every_model_by_name(
    make_project: MakeProject, rivals: dict[str, Any]
) -> None:
    project = started(make_project, rivals, start_from="none", further=True)
    image_id = next(iter(project.pool))
    target = target_map(project, image_id)
    with starting_maps(project, "scenes@0") as maps:
        given = maps(image_id, target)
    assert given.start is None
    assert sorted(given.further) == ["near", "scenes@0", "trees"]
    assert given.further["scenes@0"] is target
    assert np.array_equal(given.further["near"], stored_map(project, "near", image_id, target))
    assert not list(project.settings.workspace.glob("evaluations/start-*")), "measured without need"


def test_models_are_compared_once_and_anew_when_one_changes(
    make_project: MakeProject, rivals: dict[str, Any], scenes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = started(make_project, rivals, start_from="best")
    (file,) = project.settings.workspace.glob("evaluations/start-*.json")
    written = file.stat().st_mtime_ns
    prepare_starts(project, lambda *_: pytest.fail("measured again"))
    assert file.stat().st_mtime_ns == written
    models = rivals | {"competing": {"trees": rivals["competing"]["trees"]}}
    other = make_project(models=models, segmentation={"start_from": "best"})
    with caplog.at_level(logging.WARNING):
        assert best_models(other) == {}
    assert "annotators start from the target" in caplog.text
    prepare_starts(other, lambda *_: None)
    assert set(best_models(other).values()) == {"trees"}
