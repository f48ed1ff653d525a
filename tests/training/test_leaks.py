"""Images of a test set among those that are trained on: by id, by content under another name, by look."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from mad_backend.core.records import Failure
from mad_backend.errors import TrainingError
from tests.training.conftest import MakeProject
from training.leaks import Leak, images_to_leave_out, images_under_test, leaked
from training.project import Project

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PICTURES = 6


@pytest.fixture
def cut(make_project: MakeProject, tmp_path: Path, scenes: Path) -> Callable[..., Project]:
    """Makes a project of six pictures (and those that `plant` adds) whose first two are T(1) and next two S(1)."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted((scenes / "pool" / "images").iterdir())[:PICTURES]:
        shutil.copy(path, folder / path.name)

    def make(plant: Callable[[Path], None] = lambda _: None, near: int | None = None) -> Project:
        plant(folder)
        project = make_project(
            pool=[{"name": "pool", "images": str(folder)}], selection={"near_duplicates": near}
        )
        ids = sorted(project.pool)
        project.store.rounds.create(1, 7, NOW, "scenes@0")
        project.store.choices.record_cut(1, [Failure(i, 1.0) for i in ids[2:4]], ids[:2], {})
        return project

    return make


def test_a_clean_cut_leaves_nothing_out_and_images_are_read_once(cut: Callable[..., Project]) -> None:
    project = cut(near=6)
    trained = [*(project.pool[i] for i in sorted(project.pool)[2:]), *(item.image for item in project.s0)]
    assert images_to_leave_out(project, 1, trained) == set()
    parts = list((project.settings.workspace / "ledger").iterdir())
    assert images_to_leave_out(project, 1, trained) == set()
    assert list((project.settings.workspace / "ledger").iterdir()) == parts


def test_an_image_of_a_test_set_put_into_s_by_hand_stops_the_training(cut: Callable[..., Project]) -> None:
    project = cut()
    drawn = project.store.choices.test_set(1)[0]
    project.store.rounds.create(2, 7, NOW, "scenes@0")
    with pytest.raises(TrainingError, match=f"^{drawn} of a test set would be trained on.* changed by hand"):
        images_to_leave_out(project, 2, [project.pool[drawn]])


def test_a_tested_picture_under_another_name_is_left_out_and_named(
    cut: Callable[..., Project], caplog: pytest.LogCaptureFixture
) -> None:
    project = cut(lambda folder: shutil.copy(folder / "pool_00001.jpg", folder / "zz_copy.jpg"))
    trained = [project.pool[i] for i in sorted(project.pool)[2:]]
    assert images_to_leave_out(project, 1, trained) == {"pool/zz_copy"}
    assert "pool/zz_copy is the same file as pool/pool_00001" in caplog.text


@pytest.mark.parametrize("near", [None, 6])
def test_a_tested_picture_saved_anew_is_left_out_where_near_duplicates_are_one(
    cut: Callable[..., Project], near: int | None
) -> None:
    def plant(folder: Path) -> None:
        with Image.open(folder / "pool_00000.jpg") as image:
            image.resize((200, 150)).save(folder / "zz_small.jpg", quality=60)

    project = cut(plant, near)
    trained = [project.pool[i] for i in sorted(project.pool)[2:]]
    assert images_to_leave_out(project, 1, trained) == ({"pool/zz_small"} if near else set())


def test_pictures_of_t0_are_found_in_s0_and_in_the_pool(cut: Callable[..., Project], scenes: Path) -> None:
    source = min((scenes / "t0" / "images").iterdir())
    project = cut(lambda folder: shutil.copy(source, folder / "zz_benchmark.jpg"))
    tested = images_under_test(project, 1)
    assert len(tested) == len(project.t0) + 2
    first = project.t0[0].image.image_id
    assert leaked(project, tested, [*project.pool.values()][4:], None) == [
        Leak(first, "pool/zz_benchmark", None)
    ]
    assert leaked(project, tested, [project.t0[0].image], None) == [Leak(first, first, None)]
