"""T labelled in waves until the ranking of the models on it is stable, whatever interrupts; annotators stay blind."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Failure, HumanMask, ProjectRole, RemoteProject
from mad_backend.core.rounds import RoundState
from mad_backend.pool.images import read_label_map
from mad_backend.pool.predictions import EncodedMap, StoredMap
from tests.training.conftest import MakeProject, runner
from training.evaluate import image_sets
from training.finetune import unlabelled_images
from training.growing import images_with_people, ranking_is_stable, waves
from training.project import Project

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = [f"pool/pool_{n:05d}" for n in range(36)]
T, S = IDS[20:30], IDS[:8]
GROWING = {"size": "stable", "smallest": 4, "step": 2, "largest": 10, "per_class": None}

IsWrong = Callable[[int], bool]
"""Of the image that was drawn as the n-th for T, from 1."""


@pytest.fixture
def truth(scenes: Path) -> Path:
    """One label map for every image, so that mIoU goes by how many images a model gets wrong."""
    return scenes / "pool" / "hidden_masks" / "pool_00000.png"


@pytest.fixture
def cut(make_project: MakeProject, truth: Path) -> Callable[..., Project]:
    """Makes a project after the cut: "shifted" and "confused" are wrong where they are told to be, the target never."""

    def make(shifted: IsWrong, confused: IsWrong, **overrides: object) -> Project:
        project = make_project(**{"test_set": GROWING, **overrides})
        project.store.versions.record("scenes@0", 0, None, NOW)
        project.store.rounds.create(1, 7, NOW, "scenes@0")
        project.store.choices.record_cut(1, [Failure(i, 1.0) for i in S], T, {})
        target = project.target_key(project.current_target())
        keys = {target: lambda _: False, **dict(zip(("s", "c"), (shifted, confused), strict=True))}
        names = {"s": project.competitor_keys()["shifted"], "c": project.competitor_keys()["confused"]}
        right = read_label_map(truth)
        for key, is_wrong in keys.items():
            write_maps(project, names.get(key, key), right, is_wrong)
        return project

    return make


def write_maps(project: Project, key: str, right: LabelMap, is_wrong: IsWrong) -> None:
    wrong = np.full_like(right, 7)
    maps = [StoredMap(i, 1, EncodedMap.of(wrong if is_wrong(n) else right)) for n, i in enumerate(T, start=1)]
    with project.predictions.open(key, writable=True) as pack:
        pack.append(maps)


def draw(project: Project, truth: Path, image_ids: Collection[str]) -> None:
    for n, image_id in enumerate(image_ids):
        mask = HumanMask(image_id, str(truth), "0" * 64, "ann", n)
        project.store.remote.record_mask(1, mask)


def sizes(project: Project, truth: Path) -> list[tuple[int, int]]:
    """(images of T, images of S) that people have, wave by wave, when each is drawn before the next is asked for."""
    found = []
    for wave in waves(project, 1):
        draw(project, truth, wave)
        assert wave == sorted(wave), "nothing in the order tells T from S"
        found.append((len({*wave} & {*T}), len({*wave} & {*S})))
    return found


def second_to_the_first_alone(n: int) -> bool:
    return n == 1


def first_from_the_third(n: int) -> bool:
    return n >= 3


def test_models_that_are_told_apart_at_once_need_the_smallest_t_and_all_of_s(
    cut: Callable[..., Project], truth: Path
) -> None:
    project = cut(lambda n: True, lambda n: n % 2 == 0, test_set={**GROWING, "smallest": 6})
    assert sizes(project, truth) == [(6, 4), (6, 8)]
    assert images_with_people(project, 1) == sorted([*T[:6], *S])


def test_t_grows_while_the_ranking_changes_and_each_wave_brings_images_of_s_too(
    cut: Callable[..., Project], truth: Path
) -> None:
    """By the first two images "confused" is better, by the next ones "shifted": at 6 images that is still too near."""
    project = cut(second_to_the_first_alone, first_from_the_third)
    assert sizes(project, truth) == [(4, 4), (6, 4), (8, 6), (8, 8)]
    assert ranking_is_stable(project, 1)
    drawn = image_sets(project, 1)[-1]
    assert (drawn.name, [i.image.image_id for i in drawn.items]) == ("T(1)", T[:8])


def test_models_that_are_equal_are_measured_on_all_of_t(cut: Callable[..., Project], truth: Path) -> None:
    project = cut(lambda n: n % 2 == 0, lambda n: n % 2 == 1)
    assert sizes(project, truth) == [(4, 4), (6, 4), (8, 6), (10, 8)]


def test_a_process_that_is_killed_goes_on_with_the_wave_it_was_at(
    cut: Callable[..., Project], truth: Path
) -> None:
    project = cut(second_to_the_first_alone, first_from_the_third)
    steps = waves(project, 1)
    first = next(steps)
    draw(project, truth, first)
    second = next(steps)
    assert next(waves(project, 1)) == first, "nothing of the second was sent: it is asked for again"
    (late,) = {*second} & {T[5]}
    remote = RemoteProject(ProjectRole.SEGMENTATION, 1, "segmentation", "0" * 64)
    project.store.remote.record_project(1, remote)
    project.store.remote.record_tasks(
        1, ProjectRole.SEGMENTATION, {i: n for n, i in enumerate([*first, late])}
    )
    assert next(waves(project, 1)) == second, "a part was sent: the rest follows"
    assert sizes(project, truth) == [(6, 4), (8, 6), (8, 8)]


def test_a_t_of_a_fixed_size_goes_out_at_once(cut: Callable[..., Project], truth: Path) -> None:
    project = cut(lambda n: True, lambda n: False, test_set={"size": 10})
    assert sizes(project, truth) == [(10, 8)]
    assert images_with_people(project, 1) == sorted([*T, *S])


def test_without_label_maps_of_two_models_nothing_is_ranked(cut: Callable[..., Project], truth: Path) -> None:
    project = cut(lambda n: True, lambda n: False)
    draw(project, truth, T[:4])
    assert ranking_is_stable(project, 1)
    draw(project, truth, ["pool/pool_00030"])
    project.store.rounds.create(2, 7, NOW, "scenes@0")
    project.store.choices.record_cut(2, [], ["pool/pool_00030"], {})
    project.store.remote.record_mask(2, HumanMask("pool/pool_00030", str(truth), "0" * 64, "ann", 1))
    assert not ranking_is_stable(project, 2)


def test_the_steps_of_a_round_label_and_check_what_was_sent_and_the_reserve_stays_quarantined(
    cut: Callable[..., Project],
) -> None:
    project = cut(lambda n: True, lambda n: False)
    steps, store = runner(project), project.store
    assert steps.step(1, RoundState.LABELLING)
    drawn = store.remote.masks(1).keys()
    grown = len(drawn & {*T})
    assert drawn >= {*S, *T[:4]}
    assert drawn & {*T} == {*T[:grown]}
    assert grown < len(T)
    assert steps.step(1, RoundState.CHECKING)
    assert {check.image_id for check in store.checks.all(1)} == set(drawn)
    assert len(image_sets(project, 1)[-1].items) == grown
    assert store.choices.spent() >= {*T}
    assert not {i.image_id for i in unlabelled_images(project, 1)} & {*T}
