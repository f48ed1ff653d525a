"""Measured numbers against a plain pixel-by-pixel computation."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.core.metrics import dataset_miou, image_miou
from mad_backend.core.records import HumanMask, PoolImage
from mad_backend.engines.base import ModelRecipe
from mad_backend.errors import CorruptFileError
from mad_backend.models.registry import stored_key
from mad_backend.pool.sources import LabelledImage
from mad_backend.pool.truths import Truth
from mad_backend.settings import ModelSettings
from mad_backend.store.versions import EvaluationRow
from tests.training.conftest import MakeProject
from training.evaluate import (
    ImageSet,
    MeasuredModel,
    current_matrices,
    evaluate_all,
    image_sets,
    read_matrices,
    target_versions,
)
from training.finetuning.dev import DevSet
from training.finetuning.samples import Sample
from training.project import Project

CLASSES = 8


def naive_counts(truth: LabelMap, prediction: LabelMap) -> NDArray[np.float64]:
    """(3, C): intersection, truth and prediction pixels of each class, one pixel after the other."""
    counts = np.zeros((3, CLASSES))
    for wanted, found in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if wanted == VOID:
            continue
        counts[1, wanted] += 1
        if found < CLASSES:
            counts[2, found] += 1
        counts[0, wanted] += wanted == found
    return counts


def naive_miou(counts: NDArray[np.float64]) -> float:
    hit, rows, columns = counts
    values = [hit[k] / (rows[k] + columns[k] - hit[k]) for k in range(CLASSES) if rows[k] + columns[k] > 0]
    return sum(values) / len(values)


def row_of(project: Project, model: str, image_set: str) -> EvaluationRow:
    (row,) = [r for r in project.store.versions.evaluations() if (r.model, r.image_set) == (model, image_set)]
    return row


@pytest.mark.parametrize("model", ["shifted", "scenes@1"])
def test_mious_on_t1_equal_a_pixel_by_pixel_count_at_image_size(finished: Project, model: str) -> None:
    (t1,) = [s for s in image_sets(finished, 2) if s.name == "T(1)"]
    key = (
        finished.competitor_keys()[model]
        if model == "shifted"
        else finished.target_key(finished.store.versions.get(model))
    )
    counts = []
    with finished.predictions.open(key) as pack:
        for item in t1.items:
            truth = item.truth.read()
            assert truth.shape == (192, 256)
            small = pack.read(item.image.image_id)
            assert small.shape == (48, 64)
            restored = np.asarray(Image.fromarray(small).resize((256, 192), Image.Resampling.NEAREST))
            counts.append(naive_counts(truth, restored))
    matrices = read_matrices(row_of(finished, model, "T(1)"))
    assert dataset_miou(matrices) == pytest.approx(naive_miou(np.sum(counts, axis=0)), abs=1e-12)
    assert image_miou(matrices) == pytest.approx(np.mean([naive_miou(c) for c in counts]), abs=1e-12)


def test_dev_and_report_parts_of_t0_are_disjoint_and_complete(finished: Project) -> None:
    dev = {i.image.image_id for i in finished.t0_dev}
    report = {i.image.image_id for i in finished.t0_report}
    assert not dev & report
    assert dev | report == {i.image.image_id for i in finished.t0}
    assert {i.image.image_id for i in image_sets(finished, 0)[0].items} == report


def test_paper_mode_uses_all_of_t0_for_both(make_project: MakeProject) -> None:
    project = make_project(training={"validation": "paper"})
    assert project.t0_dev == project.t0_report == project.t0


def test_measure_gives_the_number_that_evaluation_records(finished: Project) -> None:
    model = finished.target(finished.store.versions.get("scenes@1"))
    measured = dev_set(finished, finished.t0_report).score(model)
    assert measured.value == pytest.approx(dataset_miou(read_matrices(row_of(finished, "scenes@1", "T(0)"))))


def dev_set(project: Project, items: Sequence[LabelledImage]) -> DevSet:
    samples = [Sample(i.image.image_id, Path(i.image.path), i.truth) for i in items]
    return DevSet(samples, (), project.grid, CLASSES)


Half = tuple[Project, ImageSet, ModelRecipe]


def measure(project: Project, recipe: ModelRecipe, image_set: ImageSet) -> dict[tuple[str, str], Any]:
    """What is measured of the model and the set as they are now."""
    key = stored_key(recipe.name, recipe.settings, recipe.labels, recipe.grid)
    models = [MeasuredModel(recipe.name, key, recipe)]
    evaluate_all(project, models, [image_set], lambda done, total: None)
    return current_matrices(project, models, [image_set])


@pytest.fixture
def half_answered(make_project: MakeProject, tmp_path: Path) -> Half:
    """Two images of T(0) and a model that has an answer, the truth, for the first one only."""
    project = make_project()
    items = tuple(project.t0[:2])
    folder = tmp_path / "half" / "t0"
    folder.mkdir(parents=True)
    (folder / items[0].truth.path.name).write_bytes(items[0].truth.path.read_bytes())
    settings = ModelSettings(kind="folder", path=tmp_path / "half")
    return project, ImageSet("T(0)", items), ModelRecipe("half", settings, project.labels, project.grid)


def test_no_answer_is_a_miss_on_every_pixel(
    half_answered: Half,
) -> None:
    project, image_set, recipe = half_answered
    measure(project, recipe, image_set)
    matrices = read_matrices(row_of(project, "half", "T(0)"))
    assert matrices.shape == (2, CLASSES, CLASSES + 1)
    assert matrices[1, :, -1].sum() == matrices[1].sum() == 192 * 256
    truths = [i.truth.read() for i in image_set.items]
    nothing = np.full((192, 256), VOID, np.uint8)
    small = Image.fromarray(truths[0]).resize((64, 48), Image.Resampling.NEAREST)
    first = np.asarray(small.resize((256, 192), Image.Resampling.NEAREST))
    wanted = naive_miou(naive_counts(truths[0], first) + naive_counts(truths[1], nothing))
    assert dataset_miou(matrices) == pytest.approx(wanted, abs=1e-12)
    assert dev_set(project, image_set.items).score(recipe.load()).value == pytest.approx(wanted, abs=1e-12)


def test_what_was_measured_is_not_measured_again(
    half_answered: Half,
) -> None:
    project, image_set, recipe = half_answered
    measure(project, recipe, image_set)
    path = Path(row_of(project, "half", "T(0)").path)
    before = path.stat().st_mtime_ns
    measure(project, recipe, image_set)
    assert path.stat().st_mtime_ns == before


def test_other_label_maps_and_other_answers_are_measured_anew_and_the_old_numbers_never_taken_for_theirs(
    half_answered: Half, tmp_path: Path
) -> None:
    project, image_set, recipe = half_answered
    first, second = image_set.items
    was = measure(project, recipe, image_set)["half", "T(0)"]
    for name, item in (("first", first), ("second", second)):
        (tmp_path / f"{name}.png").write_bytes(item.truth.path.read_bytes())
    corrected = replace(first, truth=Truth(tmp_path / "second.png"))
    changed = ImageSet("T(0)", (corrected, second))
    key = stored_key("half", recipe.settings, recipe.labels, recipe.grid)
    models = [MeasuredModel("half", key, recipe)]
    assert current_matrices(project, models, [changed]) == {}
    now = measure(project, recipe, changed)["half", "T(0)"]
    assert (now[0] != was[0]).any()
    np.testing.assert_array_equal(now[1], was[1])
    # The same files elsewhere are the same label maps.
    moved = ImageSet("T(0)", (replace(first, truth=Truth(tmp_path / "first.png")), second))
    np.testing.assert_array_equal(current_matrices(project, models, [moved])["half", "T(0)"], was)
    # Another answer is another model, whatever it is called.
    answers = recipe.settings.required_path / "t0"
    (answers / second.truth.path.name).write_bytes(second.truth.path.read_bytes())
    better = measure(project, recipe, image_set)["half", "T(0)"]
    assert dataset_miou(better) > dataset_miou(was)
    assert {r.images for r in project.store.versions.evaluations()} == {2}
    assert len(project.store.versions.evaluations()) == 3


def test_a_model_whose_files_are_gone_is_measured_by_the_maps_it_left_and_no_further(
    half_answered: Half, caplog: pytest.LogCaptureFixture
) -> None:
    project, image_set, recipe = half_answered
    named = image_set.items[0].image.image_id
    was = measure(project, recipe, ImageSet("T(0)", image_set.items[:1]))["half", "T(0)"]
    project.store.versions.record("half", 0, str(recipe.settings.required_path / "gone"), now())
    (left,) = target_versions(project)
    assert left.recipe is None
    assert "half is not measured: " in caplog.text
    sets = [ImageSet("S(1)", image_set.items[:1]), ImageSet("S(2)", image_set.items)]
    evaluate_all(project, [left], sets, lambda done, total: None)
    found = current_matrices(project, [left], sets)
    assert list(found) == [("half", "S(1)")], f"only {named} has a map"
    np.testing.assert_array_equal(found["half", "S(1)"], was)


def test_a_changed_file_of_matrices_is_refused(
    half_answered: Half,
) -> None:
    project, image_set, recipe = half_answered
    measure(project, recipe, image_set)
    row = row_of(project, "half", "T(0)")
    Path(row.path).write_bytes(b"something else")
    with pytest.raises(CorruptFileError, match="changed since half was measured"):
        read_matrices(row)


def test_surplus_images_of_one_main_object_are_dropped_in_the_order_drawn(
    make_project: MakeProject, tmp_path: Path
) -> None:
    """Drawn a, b, c, d, e; by the human maps a, b, d show class 3 and the cap is two."""
    project = make_project(test_set={"size": 5, "per_class": 2})
    drawn = sorted(project.pool)[:5]
    project.store.rounds.create(1, 7, now(), "scenes@0")
    project.store.choices.record_cut(1, [], drawn, {})
    for image_id, class_id in zip(drawn, (3, 3, 1, 3, 2), strict=True):
        path = tmp_path / f"{class_id}-{image_id.replace('/', '-')}.png"
        Image.fromarray(np.full((192, 256), class_id, np.uint8)).save(path)
        project.store.remote.record_mask(1, HumanMask(image_id, str(path), "0" * 64, "ann", 1))
    (_, t1) = image_sets(project, 1)
    assert [i.image.image_id for i in t1.items] == [drawn[0], drawn[1], drawn[2], drawn[4]]
    assert all(isinstance(i, LabelledImage) and isinstance(i.image, PoolImage) for i in t1.items)


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)
