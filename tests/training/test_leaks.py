"""Planted leaks, each caught with its name: by id, by content under another name, saved anew, made smaller, cropped."""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.competition import cut_round
from mad_backend.core.looks import Contents, Twin
from mad_backend.core.records import Candidate, Failure, Provenance, Role
from mad_backend.core.rounds import RoundState
from mad_backend.errors import PoolError, TrainingError
from mad_backend.settings import RatingSettings
from mad_backend.settings import TestSetSettings as TSettings  # pytest takes Test... for a test
from mad_backend.store.store import Store
from tests.training.conftest import MakeProject, runner
from training.finetune import unlabelled_images
from training.leaks import (
    check_benchmark,
    images_to_leave_out,
    known_contents,
    quarantined,
    read_contents,
    refused_for_test,
)
from training.project import Project
from training.start import start_round

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PICTURES = 6


def saved_anew(source: Path, copy: Path) -> None:
    with Image.open(source) as image:
        image.save(copy, quality=40)


def made_smaller(source: Path, copy: Path) -> None:
    with Image.open(source) as image:
        image.resize((200, 150)).save(copy, quality=80)


def cropped(source: Path, copy: Path) -> None:
    """Without 2 % of width and height."""
    with Image.open(source) as image:
        image.crop((2, 2, image.width - 2, image.height - 2)).save(copy, quality=90)


WAYS: dict[str, Callable[[Path, Path], object]] = {
    "same": shutil.copy,
    "anew": saved_anew,
    "small": made_smaller,
    "crop": cropped,
}


def plant(source: Path, folder: Path, ways: Iterable[str] = WAYS) -> list[str]:
    """Image ids of copies of `source` in the pool, one for each way."""
    copies = {way: folder / f"zz_{source.stem}_{way}.jpg" for way in ways}
    for way, path in copies.items():
        WAYS[way](source, path)
    return [f"pool/{path.stem}" for path in copies.values()]


def told(twins: Sequence[Twin], of: str) -> dict[str, str]:
    """Image id -> how it is the image `of`, for those that are."""
    return {t.image_id: str(t).split(" ")[1] for t in twins if t.of == of}


def candidates(competitor: str, image_ids: Sequence[str]) -> list[Candidate]:
    """M, all of one cell."""
    cells = [Provenance(competitor, 1, Role.TARGET, rank, 0.5) for rank, _ in enumerate(image_ids, start=1)]
    return [Candidate(i, (cell,)) for i, cell in zip(image_ids, cells, strict=True)]


def as_planted(copies: list[str]) -> dict[str, str]:
    return {i: "is" if i.endswith("_same") else "looks" for i in copies}


@pytest.fixture
def folder(tmp_path: Path, scenes: Path) -> Path:
    """Six pictures of the scenes' pool, pool_00000 to pool_00005."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted((scenes / "pool" / "images").iterdir())[:PICTURES]:
        shutil.copy(path, folder / path.name)
    return folder


@pytest.fixture
def cut(make_project: MakeProject, folder: Path) -> Callable[..., Project]:
    """Makes a project of those pictures whose first two are T(1) and next two S(1)."""

    def make(near: int | None = 8) -> Project:
        project = make_project(
            pool=[{"name": "pool", "images": str(folder)}], test_set={"near_duplicates": near}
        )
        ids = sorted(project.pool)
        project.store.rounds.create(1, 7, NOW, "scenes@0")
        project.store.choices.record_cut(1, [Failure(i, 1.0) for i in ids[2:4]], ids[:2], {})
        return project

    return make


def test_a_clean_cut_leaves_nothing_out_and_images_are_read_once(cut: Callable[..., Project]) -> None:
    project = cut()
    trained = [*(project.pool[i] for i in sorted(project.pool)[2:]), *(item.image for item in project.s0)]
    assert images_to_leave_out(project, 1, trained) == set()
    parts = list((project.settings.workspace / "ledger").iterdir())
    assert images_to_leave_out(project, 1, trained) == set()
    assert list((project.settings.workspace / "ledger").iterdir()) == parts
    assert quarantined(project, 2) == []


def test_an_image_of_a_test_set_put_into_s_by_hand_stops_the_training(cut: Callable[..., Project]) -> None:
    project = cut()
    drawn = project.store.choices.test_set(1)[0]
    project.store.rounds.create(2, 7, NOW, "scenes@0")
    with pytest.raises(TrainingError, match=f"^{drawn} of a test set would be trained on.* changed by hand"):
        images_to_leave_out(project, 2, [project.pool[drawn]])


def test_a_tested_picture_under_another_name_is_learnt_neither_with_a_label_map_nor_without(
    cut: Callable[..., Project], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copies = plant(folder / "pool_00001.jpg", folder)
    project = cut()
    pool = unlabelled_images(project, 1)
    assert {i.image_id for i in pool} == {f"pool/pool_0000{n}" for n in range(2, 6)}.union(copies)
    assert images_to_leave_out(project, 1, pool) == set(copies)
    for image_id in copies:
        assert re.search(f"{image_id} (is|looks).* pool/pool_00001", caplog.text)


def test_where_only_equal_files_count_copies_saved_anew_pass(
    cut: Callable[..., Project], folder: Path
) -> None:
    copies = plant(folder / "pool_00001.jpg", folder, ["same", "anew"])
    project = cut(near=None)
    assert images_to_leave_out(project, 1, unlabelled_images(project, 1)) == {copies[0]}


def test_copies_of_test_images_are_in_no_later_m_and_copies_of_what_was_learnt_in_no_later_t(
    cut: Callable[..., Project], folder: Path, scenes: Path
) -> None:
    sources = {
        "t0/t0_00000": scenes / "t0" / "images" / "t0_00000.jpg",
        "s0/s0_00000": scenes / "s0" / "images" / "s0_00000.jpg",
        "pool/pool_00001": folder / "pool_00001.jpg",  # T(1)
        "pool/pool_00002": folder / "pool_00002.jpg",  # S(1)
    }
    copies = {of: plant(source, folder) for of, source in sources.items()}
    project = cut()
    read_contents(project, list(project.pool.values()))
    tested = {"t0/t0_00000", "pool/pool_00001"}
    twins = quarantined(project, 2)
    assert len(twins) == 8
    for of in tested:
        assert told(twins, of) == as_planted(copies[of])

    selected = ["pool/pool_00004", "pool/pool_00005", *chain(*copies.values())]
    refused = refused_for_test(project, 2, known_contents(project, selected))
    assert len(refused) == 16
    for of in sources:
        assert told(refused, of) == as_planted(copies[of])


def test_the_cut_keeps_copies_of_s0_out_of_t_and_copies_of_t_out_of_s_and_names_all(
    make_project: MakeProject, folder: Path, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in sorted(folder.iterdir()):
        plant(path, folder, ["anew"])
    (learnt,) = plant(scenes / "s0" / "images" / "s0_00000.jpg", folder, ["anew"])
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in folder.iterdir():
        name = path.stem.removeprefix("zz_").removesuffix("_anew")
        split = "s0/masks" if name.startswith("s0") else "pool/hidden_masks"
        shutil.copy(scenes / split / f"{name}.png", masks / f"{path.stem}.png")
    project = make_project(
        pool=[{"name": "pool", "images": str(folder), "masks": str(masks)}],
        test_set={"size": 3, "per_class": None},
        rating={"n4": 2 * PICTURES + 1},
    )
    steps, store = runner(project), project.store
    store.versions.record("scenes@0", 0, None, NOW)
    store.rounds.create(1, 7, NOW, "scenes@0")
    assert steps.step(1, RoundState.PREDICTING)
    store.choices.record_selection(1, candidates("shifted", sorted(project.pool)))
    assert steps.step(1, RoundState.RATING)
    drawn, failures = store.choices.test_set(1), {f.image_id for f in store.choices.failures(1)}
    vetoed = store.choices.vetoed()
    assert len(drawn) == 3
    assert learnt in failures
    pairs = {f"pool/pool_{n:05d}": f"pool/zz_pool_{n:05d}_anew" for n in range(PICTURES)}
    pairs |= {copy: image for image, copy in pairs.items()}
    kept_out = {pairs[i] for i in drawn} - set(drawn)
    assert kept_out
    assert failures == set(project.pool) - set(drawn) - kept_out - vetoed
    reports = project.settings.workspace / "reports"
    (refused,) = json.loads((reports / "round-001-kept-out-of-t.json").read_text())
    assert (refused["image_id"], refused["of"]) == (learnt, "s0/s0_00000")
    alike = json.loads((reports / "round-001-kept-out-of-s.json").read_text())
    assert {twin["image_id"] for twin in alike} == kept_out
    assert f"1 images are kept out of T: {learnt} looks like" in caplog.text


def test_an_m_of_nothing_but_copies_of_what_was_learnt_gives_no_round(store: Store) -> None:
    store.choices.record_selection(1, candidates("g", "ab"))
    one = np.ones(2, np.uint64)
    with pytest.raises(
        PoolError, match=r"round 1: T would be empty.*: a looks like \(3 of 64 bits differ\) s0/x, b"
    ):
        cut_round(
            store,
            1,
            7,
            dict.fromkeys("ab", 1),
            RatingSettings(),
            TSettings(),
            Contents(("a", "b"), one, one),
            [Twin("a", "s0/x", 3), Twin("b", "s0/y", None)],
        )
    assert store.choices.test_set(1) == []


def test_a_benchmark_with_images_of_s0_starts_no_round_and_look_alikes_are_told(
    make_project: MakeProject, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    shutil.copytree(scenes / "t0" / "images", images)
    shutil.copytree(scenes / "t0" / "masks", masks)
    cropped(scenes / "s0" / "images" / "s0_00000.jpg", images / "zz.jpg")
    shutil.copy(scenes / "s0" / "masks" / "s0_00000.png", masks / "zz.png")
    project = make_project(t0=[{"name": "t0", "images": str(images), "masks": str(masks)}])
    check_benchmark(project)
    assert re.search(r"1 images of t0 look like .*: t0/zz looks .* s0/s0_00000; those of s0 are", caplog.text)
    assert images_to_leave_out(project, 0, [i.image for i in project.s0]) == {"s0/s0_00000"}

    shutil.copy(scenes / "s0" / "images" / "s0_00000.jpg", images / "zz.jpg")
    with pytest.raises(
        PoolError, match=r"^1 images of t0 are trained on: t0/zz is the same file as s0/s0_00000"
    ):
        start_round(project, None)
    assert project.store.rounds.all() == []


def test_the_same_folder_as_s0_and_t0_is_refused(make_project: MakeProject, scenes: Path) -> None:
    both = [{"name": "s0", "images": str(scenes / "s0" / "images"), "masks": str(scenes / "s0" / "masks")}]
    with pytest.raises(
        PoolError, match=r"^20 images of t0 are trained on: s0/.* and 15 more; what is tested"
    ):
        check_benchmark(make_project(t0=both))
