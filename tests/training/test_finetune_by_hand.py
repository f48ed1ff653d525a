"""`mad finetune`: a folder of label maps and six lines of settings are enough, and no round is touched."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from mad_backend.core.looks import Twin
from mad_backend.errors import CorruptFileError, MadError, PoolError, SettingsError, StoreError, TrainingError
from mad_backend.models.registry import load_model
from mad_backend.settings import ModelSettings
from tests.training.conftest import settings_of
from tests.training.test_cli import mad
from training.finetune_by_hand import finetune_by_hand, open_project, prepare
from training.finetuning.job import Job
from training.finetuning.record import verify
from training.leaks import file_contents, learnt_by_hand, refused_for_test
from training.project import Project

NEEDED = {"workspace", "label_set", "s0", "t0", "grid", "models", "training"}
Open = Callable[..., Project]


@pytest.fixture
def drawn(scenes: Path, tmp_path: Path) -> Path:
    """Four label maps of images of the scenes' pool."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    for path in sorted((scenes / "pool" / "hidden_masks").glob("*.png"))[:4]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def open_first_try(scenes: Path, tmp_path: Path) -> Iterator[Open]:
    """A project without a pool and without competing models; `training` replaces settings of training."""
    opened: list[Project] = []

    def new(training: dict[str, Any] | None = None, **overrides: Any) -> Project:
        settings = {k: v for k, v in settings_of(scenes, tmp_path / "workspace").items() if k in NEEDED}
        settings["models"] = {k: v for k, v in settings["models"].items() if k != "competing"}
        settings["training"] |= {"learning_rates": [1e-3], "epochs": 1, **(training or {})}
        config = tmp_path / "mad.yaml"
        config.write_text(yaml.safe_dump({**settings, **overrides}))
        opened.append(open_project(config))
        return opened[-1]

    yield new
    for project in opened:
        project.store.close()


def silent(_what: str, _done: int, _total: int) -> None: ...


def test_the_command_needs_six_lines_of_settings_and_ends_with_lines_that_use_the_weights(
    open_first_try: Open, drawn: Path, scenes: Path, tmp_path: Path
) -> None:
    project = open_first_try()
    command = ["finetune", "--config", "mad.yaml", "--masks", "drawn", "--images", f"{scenes}/pool/images"]
    answer = mad(*command, "--out", "weights", cwd=tmp_path, COLUMNS="200")
    assert answer.returncode == 0, answer.stderr
    told = answer.stdout.splitlines()
    assert told[0] == "scenes@0+drawn: scenes@0 learns 4 images of S beside 20 of S(0)"
    assert "T(0), 4 images that are only reported" in answer.stdout
    assert "S, 4 images that were learnt" in answer.stdout
    folder = tmp_path / "weights"
    assert told[-5:] == [
        f"weights and their record: {folder}",
        "to use them, write in mad.yaml:",
        "  models:",
        "    target:",
        f"      path: {folder / 'model.safetensors'}",
    ]
    lines = yaml.safe_load("\n".join(told[-3:]))["models"]["target"]
    used = ModelSettings.model_validate(project.settings.models.target.model_dump(exclude_unset=True) | lines)
    assert load_model("used", used, project.labels, project.grid).class_ids
    assert verify(folder) == []
    assert project.store.versions.all() == []
    assert project.store.rounds.all() == []


def test_what_was_stopped_goes_on_and_what_is_finished_is_not_repeated(
    open_first_try: Open, drawn: Path, scenes: Path
) -> None:
    project = open_first_try({"epochs": 2})
    job = prepare(project, drawn, scenes / "pool" / "images", None)
    seen: list[int] = []

    def interrupted(_what: str, done: int, _total: int) -> None:
        seen.append(done)
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_by_hand(project, job, None, interrupted)
    assert seen == [1, 2, 3, 4, 5, 6]
    seen.clear()
    again = prepare(project, drawn, scenes / "pool" / "images", "scenes@0")
    found = finetune_by_hand(project, again, None, lambda what, done, total: seen.append(done))
    assert seen[:4] == [5, 6, 7, 8]
    assert (found.benchmark.images, found.failures.images) == (4, 4)
    change = found.failures.change
    assert change.value == pytest.approx(found.failures.after - found.failures.before)
    assert change.low <= change.value <= change.high
    starts = json.loads((found.folder / "meta.json").read_text())["starts"]
    assert len(starts) == 2

    seen.clear()
    assert finetune_by_hand(project, again, None, lambda what, done, total: seen.append(done)) == found
    assert seen == [0], "nothing but measuring"

    # Rounds that begin with these weights: what taught them must be in no T, whatever it is called in the pool.
    target = project.settings.models.target.model_copy(update={"path": found.path})
    models = project.settings.models.model_copy(update={"target": target})
    taught = replace(project, settings=project.settings.model_copy(update={"models": models}))
    failures = [sample.image_id for sample in job.failures]
    assert [i.image_id for i in learnt_by_hand(taught)] == failures + [i.image.image_id for i in project.s0]
    photos = [scenes / "pool" / "images" / f"{name}.jpg" for name in (failures[1], "pool_00030")]
    selected = file_contents({f"photos/{n}": path for n, path in enumerate(photos)}, project.grid)
    assert refused_for_test(taught, 1, selected) == [Twin("photos/0", failures[1], None)]
    (found.folder / "data.jsonl").unlink()
    with pytest.raises(
        CorruptFileError, match=r"meta\.json, beside the target's weights, does not tell which images"
    ):
        learnt_by_hand(taught)


def prepared(project: Project, drawn: Path, images: Path | None, target: str | None = None) -> Job | MadError:
    try:
        return prepare(project, drawn, images, target)
    except MadError as error:
        return error


def test_an_image_of_t0_is_not_learnt_under_whatever_name(
    open_first_try: Open, drawn: Path, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = open_first_try()
    images = tmp_path / "images"
    images.mkdir()
    for path in drawn.iterdir():
        shutil.copy(scenes / "pool" / "images" / f"{path.stem}.jpg", images)
    leaked = project.t0[3].image
    shutil.copy(leaked.path, images / "new.jpg")
    shutil.copy(project.t0[3].truth.path, drawn / "new.png")
    error = prepared(project, drawn, images)
    assert isinstance(error, TrainingError)
    assert str(error).startswith(
        f"1 images of S are test images, which are never learnt, e.g. new is {leaked.image_id} of T(0)"
    )
    with Image.open(leaked.path) as image:
        image.save(images / "new.jpg", quality=50)
    job = prepared(project, drawn, images)
    assert isinstance(job, Job)
    assert [s.image_id for s in job.failures] == [f"pool_0000{n}" for n in range(4)]
    assert re.search(
        f"left out of training, since a test set has them: new looks like .* {leaked.image_id}", caplog.text
    )
    for path in drawn.glob("pool*"):
        path.unlink()
    assert isinstance(error := prepared(project, drawn, images), TrainingError)
    assert str(error).startswith("every image of S looks like a test image")


def test_images_of_a_rounds_test_set_are_not_learnt_either(finished: Project, tmp_path: Path) -> None:
    """In a whole project, whose pool has the images."""
    project = open_project(finished.config)
    tested = project.store.choices.test_set(1)[0]
    name = tested.removeprefix("pool/")
    (tmp_path / "drawn").mkdir()
    shutil.copy(finished.store.final_masks(1)[tested].path, tmp_path / "drawn" / f"{name}.png")
    error = prepared(project, tmp_path / "drawn", None)
    project.store.close()
    assert isinstance(error, TrainingError)
    assert f"e.g. {tested} is {tested} of T(0) or of a round's T" in str(error)


def test_what_is_missing_is_named_before_anything_is_learnt(
    open_first_try: Open, drawn: Path, scenes: Path
) -> None:
    images = scenes / "pool" / "images"
    project = open_first_try()
    assert isinstance(error := prepared(project, drawn, None), SettingsError)
    assert "name their folder by --images, or a pool in " in str(error)
    assert isinstance(error := prepared(project, drawn, scenes / "s0" / "images"), PoolError)
    assert "4 of 4 label maps have no image of the same name" in str(error)
    assert isinstance(error := prepared(project, drawn, images, "scenes@7"), StoreError)
    assert 'there is no model version "scenes@7"' in str(error)
    for key in ("s0", "t0"):
        with pytest.raises(
            SettingsError, match=rf"{key} is missing: images and label maps .* write {key}: \["
        ):
            open_first_try(**{key: []})
    models = {"name": "scenes", "target": {"kind": "folder", "path": str(scenes / "models" / "shifted")}}
    assert isinstance(error := prepared(open_first_try(models=models), drawn, images), MadError)
    assert 'is of kind "folder", which cannot be fine-tuned' in str(error)


def test_a_folder_with_something_else_in_it_is_not_written_over(
    open_first_try: Open, drawn: Path, scenes: Path, tmp_path: Path
) -> None:
    project = open_first_try()
    job = prepare(project, drawn, scenes / "pool" / "images", None)
    out = tmp_path / "theirs"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingsError, match=r"--out: .*/theirs holds something else than scenes@0\+drawn"):
        finetune_by_hand(project, job, out, silent)
    assert (out / "thesis.txt").exists()


def test_a_recipe_that_wants_pool_images_does_without_where_there_is_no_pool(
    open_first_try: Open, drawn: Path, scenes: Path
) -> None:
    project = open_first_try({"distillation": {"replay": 0.5, "pool": 0.5}})
    job = prepare(project, drawn, scenes / "pool" / "images", None)
    assert (job.settings.distillation.replay, job.settings.distillation.pool, job.unlabelled) == (
        0.5,
        0.0,
        (),
    )
