"""`mad select --dry-run`: what M would be, from stored scores alone."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mad_backend.competition import little_choice
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.records import Failure
from mad_backend.core.rounds import RoundState
from mad_backend.core.scores import scores_of
from mad_backend.errors import MadError, SettingsError, StoreError
from mad_backend.pool.ids import image_keys
from mad_backend.pool.ledger import SeenImage
from mad_backend.settings import RatingSettings
from mad_backend.settings import TestSetSettings as TSettings  # pytest takes Test... for a test
from tests.training.conftest import MakeProject, runner
from training.cli import app
from training.leaks import read_contents
from training.project import Project
from training.scenes import HOUSE, TREE

Select = Callable[..., Result]


def select(project: Project, *arguments: str) -> Result:
    command = ["select", "--config", str(project.config), *arguments]
    return CliRunner().invoke(app, command, env={"COLUMNS": "100"})


def score(
    project: Project, images: int = 12, competitors: tuple[str, ...] = ("confused", "shifted")
) -> list[str]:
    """Scores of images with an eighth of house to the target and more and more tree to the competitors."""
    ids = [f"pool/pool_{n:05d}" for n in range(images)]
    joints = []
    for n in range(images):
        target, other = np.zeros((2, 64, 64), np.uint8)
        target[:, :8], other[:, 8 : 9 + n] = HOUSE, TREE
        joints.append(joint_histogram(target, other, 8))
    one = np.ones(images, np.uint64)
    key = project.target_key(project.current_target())
    for name in competitors:
        project.scores.append(key, project.competitor_keys()[name], scores_of(ids, one, one, joints))
    return ids


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    return make_project(selection={"n3": 2, "windows": {"house": [0.1, 0.3], "tree": [0.0, 1.0]}})


def test_it_refuses_to_record_anything(project: Project) -> None:
    score(project)
    refused = select(project)
    assert isinstance(refused.exception, SettingsError)
    assert "add --dry-run" in str(refused.exception)


def test_before_a_scan_it_says_what_to_do(project: Project) -> None:
    refused = select(project, "--dry-run")
    assert isinstance(refused.exception, MadError)
    assert str(refused.exception) == (
        "nothing of the pool has been scanned with scenes@0 yet; run `mad scan` first"
    )


def test_the_table_shows_cells_windows_and_what_is_left_out_in_100_columns(project: Project) -> None:
    ids = score(project)
    project.store.rounds.create(1, 7, datetime(2026, 1, 1, tzinfo=UTC), "scenes@0")
    project.store.choices.record_cut(1, [Failure(ids[11], 1.0)], [ids[10]], {ids[9]: "ann"})
    for key in project.competitor_keys().values():
        project.scores.set_absent(project.target_key(project.current_target()), key, image_keys(ids[1:]))
    answer = select(project, "--dry-run")
    assert answer.exit_code == 0, answer.exception
    lines = answer.output.splitlines()
    assert max(map(len, lines)) <= 100
    house = next(line for line in lines if line.startswith("house"))
    assert house.split()[:4] == ["house", "10-30", "set", "confused"]
    assert house.split()[4] == "2/8"
    (both,) = (line for line in lines if line.startswith("|M| would be"))
    assert both.startswith("|M| would be 2 images of 11 scanned with scenes@0, from 28 cells; 24 of them")
    assert "left out: 2 images of earlier S and T, 1 vetoed, 1 no longer in the pool" in lines
    assert any(line.startswith("S takes 0 of the 0 images of M that T leaves, whatever") for line in lines)
    assert not project.store.choices.selection(1), "nothing is recorded"


def test_a_picture_like_one_of_t0_leaves_its_place_in_a_preview_and_in_a_round(project: Project) -> None:
    ids = score(project)
    look = read_contents(project, [project.t0[0].image]).hashes[0]
    project.open_ledger().append([SeenImage(project.pool[ids[11]], 5, int(look) ^ 0b1011)])
    answer = select(project, "--dry-run")
    assert (
        "left out: 0 images of earlier S and T, 0 vetoed, 0 no longer in the pool, 1 like a test image"
        in answer.output
    )
    now = datetime(2026, 1, 1, tzinfo=UTC)
    project.store.versions.record("scenes@0", 0, None, now)
    project.store.rounds.create(1, 7, now, "scenes@0")
    assert runner(project).step(1, RoundState.SELECTING)
    assert [c.image_id for c in project.store.choices.selection(1)] == ids[9:11]
    report = project.settings.workspace / "reports" / "round-001-kept-out-of-m.json"
    assert json.loads(report.read_text()) == [
        {"image_id": ids[11], "of": project.t0[0].image.image_id, "bits": 3}
    ]


def test_ties_and_a_competitor_without_scores_are_told(project: Project) -> None:
    score(project, competitors=("confused",))
    answer = select(project, "--dry-run")
    assert "shifted has no scores against scenes@0; run `mad scan`" in answer.output
    assert "ties at the cut: " not in answer.output
    key = project.target_key(project.current_target())
    target = np.zeros((64, 64), np.uint8)
    target[:, :12] = HOUSE
    joints = [joint_histogram(target, np.zeros_like(target), 8)] * 5
    one = np.ones(5, np.uint64)
    project.scores.append(
        key, project.competitor_keys()["shifted"], scores_of(list("abcde"), one, one, joints)
    )
    answer = select(project, "--dry-run")
    assert "ties at the cut: 1 cells, up to 3 images left out by their id alone" in answer.output
    assert " +3" in answer.output


def test_json_holds_every_cell_and_image(project: Project) -> None:
    ids = score(project)
    found = json.loads(select(project, "--dry-run", "--json").output)
    assert found["target"] == "scenes@0"
    assert found["size"] == len(found["selected"]) == 2
    assert [i["image_id"] for i in found["selected"]] == ids[10:]
    assert found["images"] == {"confused": 12, "shifted": 12}
    assert found["windows"]["house"] == {"low": 0.1, "high": 0.3, "images": 0, "origin": "settings"}
    assert found["windows"]["car"]["origin"] in ("quartiles", "widened")
    assert len(found["cells"]) == 2 * 2 * 7
    cell = next(c for c in found["cells"] if (c["class"], c["role"]) == ("house", "target"))
    assert (cell["eligible"], cell["chosen"], cell["short"]) == (12, 2, False)
    tree = next(c for c in found["cells"] if (c["class"], c["role"]) == ("tree", "target"))
    assert (tree["eligible"], tree["short"], tree["largest"]) == (0, True, None)
    assert found["selected"][1]["provenance"][0] == {
        "class": "house", "competitor": "confused", "role": "target", "rank": 1, "discrepancy": cell["largest"],
    }  # fmt: skip


def test_windows_are_those_of_the_training_images(make_project: MakeProject) -> None:
    project = make_project()
    score(project)
    found = json.loads(select(project, "--dry-run", "--json").output)["windows"]["house"]
    shares = []
    for item in project.s0:
        label_map = item.truth.read()
        if (label_map == HOUSE).any():
            shares.append((label_map == HOUSE).mean())
    assert found["images"] == len(shares)
    quantiles = (0.25, 0.75) if len(shares) >= 20 else (0.05, 0.95)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(shares, quantiles)))


def test_a_round_gives_its_own_target_version(project: Project) -> None:
    score(project)
    refused = select(project, "--dry-run", "--round", "3")
    assert isinstance(refused.exception, StoreError)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    project.store.versions.record("scenes@0", 0, None, now)
    project.store.rounds.create(1, 7, now, "scenes@0")
    project.store.versions.record("scenes@1", 1, project.settings.models.target.path.as_posix(), now)
    project.store.versions.promote("scenes@1", now, "better")
    assert "scanned with scenes@1 yet" in str(select(project, "--dry-run").exception)
    assert "scanned with scenes@0, from" in select(project, "--dry-run", "--round", "1").output


def test_raters_need_something_to_choose_from() -> None:
    rating, test_set = RatingSettings(n4=10), TSettings(size=4)
    assert little_choice(24, rating, test_set) is None
    assert str(little_choice(23, rating, test_set)).startswith("S takes 10 of the 19 images of M")
    assert str(little_choice(7, rating, test_set)).startswith("S takes 3 of the 3 images")
