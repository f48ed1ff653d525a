"""What goes wrong, of planted failures and of a project after two rounds; the page and the command."""

import json
import math
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from mad_backend.core.confusions import Position, Size
from mad_backend.core.failure_groups import FailureGroup, trends
from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Failure, HumanMask, Rating
from mad_backend.errors import SettingsError, StoreError
from tests.training.conftest import MakeProject, settings_of
from tests.training.test_pages import outline
from training.cli import app
from training.evaluate import evaluate_all, failure_sets, image_sets, target_versions
from training.failures import FailureReport, build_failures
from training.failures_page import failure_page
from training.project import Project
from training.scenes import CAR, HOUSE, PERSON

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def drawn(class_id: int, rows: slice, columns: slice) -> LabelMap:
    label_map = np.zeros((20, 30), np.uint8)
    label_map[rows, columns] = class_id
    return label_map


CORNER = slice(0, 4), slice(0, 4)
CAR_THERE, PERSON_THERE = drawn(CAR, *CORNER), drawn(PERSON, *CORNER)
HOUSE_THERE = drawn(HOUSE, slice(4, 16), slice(8, 22))
NOTHING = np.zeros((20, 30), np.uint8)
PLANTED = {  # image id -> what people drew, what f(0) said, what f(1) said
    "a": (CAR_THERE, PERSON_THERE, CAR_THERE),
    "b": (CAR_THERE, PERSON_THERE, CAR_THERE),
    "c": (CAR_THERE, PERSON_THERE, PERSON_THERE),
    "d": (HOUSE_THERE, NOTHING, NOTHING),
    "e": (CAR_THERE, PERSON_THERE, CAR_THERE),
    "f": (CAR_THERE, CAR_THERE, PERSON_THERE),
    "right": (HOUSE_THERE, NOTHING, HOUSE_THERE),
}
CHOSEN = {1: (["a", "b", "c", "d"], ["e"]), 2: (["f", "right"], [])}
"""Round -> S, T."""


def write_planted(folder: Path) -> None:
    """photos/, and the label maps of people, f(0) and f(1)."""
    rng = np.random.default_rng(0)
    for image_id, maps in PLANTED.items():
        for kind, label_map in zip(("people", "first", "second"), maps, strict=True):
            (folder / kind / "pool").mkdir(parents=True, exist_ok=True)
            Image.fromarray(label_map).save(folder / kind / "pool" / f"{image_id}.png")
        (folder / "photos").mkdir(exist_ok=True)
        photo = rng.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(photo).save(folder / "photos" / f"{image_id}.png")


def record_round(project: Project, number: int, people: Path) -> None:
    """M is S, T and 5 more images, all rated by two people."""
    failures, test_set = ([f"pool/{i}" for i in ids] for ids in CHOSEN[number])
    project.store.rounds.create(number, 0, NOW, f"scenes@{number - 1}")
    rated = [*failures, *test_set, *(f"pool/other-{n}" for n in range(5))]
    ratings = [
        Rating(image_id, rater, 1, 2 * n + m, NOW)
        for n, image_id in enumerate(rated)
        for m, rater in enumerate(("ann", "bob"))
    ]
    project.store.remote.record_ratings(number, ratings)
    project.store.choices.record_cut(number, [Failure(i, 1.0) for i in failures], test_set, {})
    for n, image_id in enumerate([*failures, *test_set]):
        mask = HumanMask(image_id, str(people / f"{image_id}.png"), f"{n}", "cat", n)
        project.store.remote.record_mask(number, mask)


@pytest.fixture
def planted(make_project: MakeProject, scenes: Path, tmp_path: Path) -> Project:
    """Two rounds in which f(0), and then f(1), were wrong as planted, measured."""
    write_planted(tmp_path)
    models = settings_of(scenes, scenes)["models"]
    project = make_project(
        pool=[{"name": "pool", "images": str(tmp_path / "photos")}],
        models={**models, "target": {"kind": "folder", "path": str(tmp_path / "first")}},
        selection={"windows": {"car": [0.05, 0.2], "house": [0.05, 0.2]}},
    )
    project.store.versions.record("scenes@0", 0, None, NOW)
    project.store.versions.record("scenes@1", 1, str(tmp_path / "second"), NOW)
    project.store.versions.promote("scenes@1", NOW, "the gate")
    for number in CHOSEN:
        record_round(project, number, tmp_path / "people")
    sets = [*failure_sets(project, 2), *(s for s in image_sets(project, 2) if s.name != "T(0)")]
    evaluate_all(project, target_versions(project), sets, lambda *_: None)
    return project


def build(project: Project, number: int | None = None) -> FailureReport:
    return build_failures(project, number, lambda *_: None)


def ids(group: FailureGroup) -> list[str]:
    return [member.image_id for member in group.members]


def mad(project: Project, *arguments: str, **options: Any) -> str:
    command = ["failures", "--config", str(project.config), *arguments]
    answer = CliRunner().invoke(app, command, env={"COLUMNS": "250"}, catch_exceptions=False, **options)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_small_cars_at_the_border_that_are_people_to_the_target_are_one_group(planted: Project) -> None:
    report = build(planted)
    house, car = report.confusions
    assert (car.truth, car.predicted) == (CAR, PERSON)
    assert ids(car) == ["pool/a", "pool/b", "pool/c", "pool/e", "pool/f"]
    assert car.kinds == {(Size.SMALL, Position.BORDER): 5}
    assert car.area == pytest.approx(5 * 16 / 600)
    assert (house.truth, house.predicted, ids(house)) == (HOUSE, 0, ["pool/d"])
    assert house.kinds == {(Size.LARGE, Position.CENTRE): 1}
    assert report.left_out == {"pool/right": "scenes@1 has nothing wrong on it"}
    assert report.appearances == ()
    assert 'kind "folder" gives label maps only' in report.no_appearances


def test_the_trend_of_a_group_is_that_by_hand(planted: Project) -> None:
    report = build(planted)
    assert report.rated == {"S(1)": 10, "T(1)": 10, "S(2)": 7}
    assert report.versions == ("scenes@0", "scenes@1")
    house, car = report.confusions
    one, tested, two = trends(car, report.rated, report.versions)
    # A car that is a person to a model: background is right, two classes have nothing in common, so 1/3.
    third = pytest.approx(1 / 3)
    assert (one.image_set, one.images, one.rated_share, one.found) == ("S(1)", 3, 0.3, third)
    assert one.miou == {"scenes@0": third, "scenes@1": pytest.approx((1 + 1 + 1 / 3) / 3)}
    assert (tested.images, tested.found, tested.miou["scenes@1"]) == (1, third, 1.0)
    assert (two.images, two.rated_share, two.found) == (1, pytest.approx(1 / 7), third)
    assert two.miou == {"scenes@0": 1.0, "scenes@1": third}
    gone = trends(house, report.rated, report.versions)[2]
    assert gone.images == 0
    assert math.isnan(gone.found)


def test_one_round_alone_and_label_maps_that_are_not_measured_yet(planted: Project) -> None:
    planted.store.versions.record("scenes@2", 2, str(planted.config.parents[1] / "people"), NOW)
    planted.store.versions.promote("scenes@2", NOW, "by hand")
    report = build(planted, 2)
    (car,) = report.confusions
    assert ids(car) == ["pool/f"]
    assert list(report.rated) == ["S(2)"]
    assert report.versions == ("scenes@0", "scenes@1")
    assert "0.333 -> -" in mad(planted, "--round", "2")
    planted.store.rounds.create(3, 0, NOW, "scenes@2")
    with pytest.raises(StoreError, match="no image of S or T of round 3 has a label map of people yet"):
        build(planted, 3)
    with pytest.raises(StoreError, match="there is no round 4"):
        build(planted, 4)


def test_the_command_tells_groups_as_a_table_and_as_json(planted: Project) -> None:
    text = mad(planted)
    row = next(line for line in text.splitlines() if "car as person" in line)
    assert "5 small" in row
    assert "5 at the border" in row
    assert "0.333 -> 0.667" in row  # S: a and b are right now, c and f are not
    assert "0.333 -> 1.000" in row
    assert "1 image in no group: scenes@1 has nothing wrong on it" in text
    assert "no groups by appearance: model" in text
    told = json.loads(mad(planted, "--json"))
    group = told["confusions"][1]
    assert (group["truth"], group["predicted"]) == ("car", "person")
    assert group["kinds"] == [{"size": "small", "position": "at the border", "images": 5}]
    assert group["trend"][2]["images"] == 1
    assert group["images"][0]["confusion"]["truth"] == "car"
    assert told["confusions"][0]["trend"][2]["found"] is None


def test_a_page_of_another_ending_is_refused_before_anything_is_computed(planted: Project) -> None:
    with pytest.raises(SettingsError, match=r"--out page\.pdf: wanted a name that ends in \.html"):
        mad(planted, "--out", "page.pdf")


@pytest.fixture(scope="module")
def after_two_rounds(
    finished: Project, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A copy of the project after two rounds, which may get features."""
    folder = tmp_path_factory.mktemp("failures")
    shutil.copytree(finished.settings.workspace, folder, dirs_exist_ok=True)
    (folder / "mad.yaml").write_text(yaml.safe_dump(settings_of(scenes, folder)))
    project = Project.open(folder / "mad.yaml")
    yield project
    project.store.close()


def test_every_labelled_image_is_in_one_group_by_confusion_and_in_one_by_appearance(
    after_two_rounds: Project,
) -> None:
    project = after_two_rounds
    report = build(project)
    choices = project.store.choices
    chosen = {i for n in (1, 2) for i in [f.image_id for f in choices.failures(n)] + choices.test_set(n)}
    by_pair = [i for group in report.confusions for i in ids(group)]
    by_look = [i for group in report.appearances for i in ids(group)]
    assert sorted(by_pair) == sorted(by_look) == sorted(chosen - report.left_out.keys())
    assert 1 < len(report.appearances) <= 8
    assert all(group.example in ids(group) for group in report.appearances)
    for image in report.images:
        assert image.found == pytest.approx(image.miou[image.target])


def test_the_page_shows_groups_with_pictures_and_curves_and_loads_nothing(after_two_rounds: Project) -> None:
    report = build(after_two_rounds)
    page = failure_page(after_two_rounds, report)
    found = outline(page)
    assert found.tags.count("svg") == 2
    groups = len(report.appearances) + min(12, len(report.confusions))
    assert found.tags.count("section") == groups + 2
    assert groups * 3 <= found.tags.count("img") <= groups * 6
    assert all(place.startswith(("data:image/jpeg;base64,", "#")) for place in found.fetched)
    assert "script" not in found.tags
    assert f"Like {report.appearances[0].example}, mostly " in page
