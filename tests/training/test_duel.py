"""`mad duel`: who is chosen, what is left out, and what comes of it, with the pool's own label maps."""

import json
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from mad_backend.competition import StoredPair
from mad_backend.core.duel import Duel, Side
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.records import Candidate, Provenance, Role
from mad_backend.core.rounds import RoundState
from mad_backend.core.scores import scores_of
from mad_backend.core.selection import Window
from mad_backend.errors import MadError, PoolError, SettingsError
from mad_backend.pool.scores import ScoreStore
from mad_backend.pool.sources import LabelledImage
from mad_backend.settings import SelectionSettings
from mad_backend.settings_file import load_label_set
from tests.training.conftest import CONFIGS, MakeProject, settings_of
from training.cli import app
from training.duel import duel_folder, find_duel, judge_duel, open_duel, oracle_labels
from training.duel_models import find_models, images_seen
from training.duel_page import duel_lines
from training.finetune import unlabelled_images
from training.finetuning.manifest import DataLine, Use, encode
from training.leaks import images_under_test
from training.project import Project
from training.scanning import scan_with
from training.scenes import HOUSE, TREE

BUDGET = 8


@pytest.fixture(scope="module")
def after_two_rounds(
    finished: Project, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A copy of the project after two rounds, in which duels may be fought."""
    folder = tmp_path_factory.mktemp("duels")
    shutil.copytree(finished.settings.workspace, folder, dirs_exist_ok=True)
    config = folder / "mad.yaml"
    names = load_label_set(CONFIGS / "label_sets" / "scenes.yaml").names
    wide = {"n3": 6, "windows": {name: [0.0, 1.0] for name in names[1:]}}
    # Drawings of one painter look alike, and rounds have used half of the pool.
    test_set = {"size": 4, "near_duplicates": None}
    settings = {**settings_of(scenes, folder), "selection": wide, "test_set": test_set}
    config.write_text(yaml.safe_dump(settings))
    project = Project.open(config)
    yield project
    project.store.close()


def mad_duel(project: Project, *arguments: str) -> Result:
    command = ["duel", "--config", str(project.config), *arguments]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def fought(after_two_rounds: Project) -> tuple[Duel, str]:
    """The duel of both competing models, and what the command said of it."""
    answer = mad_duel(after_two_rounds, "shifted", "confused", "--budget", str(BUDGET), "--oracle")
    assert answer.exit_code == 0, answer.output
    (duel,) = after_two_rounds.store.duels.all()
    return duel, answer.output


def test_the_images_are_those_on_which_the_two_disagree_most_by_class_and_role(tmp_path: Path) -> None:
    """24 images: the first 12 with a house to one and more and more tree to the other, the others with both alike."""
    ids = [f"pool/{n:02d}" for n in range(24)]
    joints = []
    for n in range(24):
        one, other = np.zeros((2, 64, 64), np.uint8)
        one[:, :8] = HOUSE
        other[:, 8 : 10 + n] = TREE
        joints.append(joint_histogram(one, one if n >= 12 else other, 8))
    store, ones = ScoreStore(tmp_path), np.ones(24, np.uint64)
    store.append("a", "b", scores_of(ids, ones, ones, joints))
    windows = {HOUSE: Window(0.1, 0.3, 0), TREE: Window(0.0, 1.0, 0)}
    settings = SelectionSettings(n3=6)
    main = dict.fromkeys(ids, HOUSE)

    def find(excluded: set[str], budget: int, per_class: int | None = None) -> list[str]:
        found = find_duel(
            StoredPair(store, "a", "b"), windows, settings, excluded, lambda _: main, budget, 3, per_class
        )
        assert all(image.discrepancy > 0 for image in found)
        return [image.image_id for image in found]

    assert sorted(find(set(), 30)) == ids[6:12]
    assert sorted(find({ids[11], ids[10]}, 30)) == ids[4:10]
    assert find(set(), 30)[:3] == find(set(), 3)
    assert len(find(set(), 30, per_class=4)) == 4


def test_both_models_are_scored_on_images_that_no_round_has_used(
    after_two_rounds: Project, fought: tuple[Duel, str]
) -> None:
    duel, said = fought
    store = after_two_rounds.store
    drawn = [image.image_id for image in duel.images]
    used = {f.image_id for n in (1, 2) for f in store.choices.failures(n)}
    used |= {i for n in (1, 2) for i in store.choices.test_set(n)}
    assert 0 < len(drawn) <= BUDGET
    assert used
    assert not used & set(drawn)
    assert f"shifted - confused on {len(drawn)} images, label maps of the pool's sources" in said
    told = json.loads((duel_folder(after_two_rounds, duel) / "duel.json").read_text())
    assert [i["image_id"] for i in told["images"]] == drawn
    assert told["verdict"] in said
    values = told["result"]["first"]["value"], told["result"]["second"]["value"]
    assert told["result"]["difference"]["value"] == pytest.approx(values[0] - values[1])


def test_its_images_are_neither_chosen_nor_learnt_later(
    after_two_rounds: Project, fought: tuple[Duel, str]
) -> None:
    drawn = {image.image_id for image in fought[0].images}
    assert drawn <= after_two_rounds.store.choices.spent()
    assert drawn <= {image.image_id for image in images_under_test(after_two_rounds, 2)}
    assert not drawn & {image.image_id for image in unlabelled_images(after_two_rounds, 2)}


def test_the_same_command_tells_the_same_again_whoever_is_named_first(
    after_two_rounds: Project, fought: tuple[Duel, str]
) -> None:
    again = mad_duel(after_two_rounds, "confused", "shifted", "--oracle", "--json")
    assert again.exit_code == 0, again.output
    told = json.loads(again.stdout)
    assert (told["first"], told["second"]) == ("shifted", "confused")
    assert told["verdict"] in fought[1]
    assert len(after_two_rounds.store.duels.all()) == 1
    other = mad_duel(after_two_rounds, "shifted", "confused", "--oracle", "--budget", "3")
    assert "was drawn with a budget of 8, which stays" in str(other.exception)


def test_a_later_version_fights_on_images_of_its_own(
    after_two_rounds: Project, fought: tuple[Duel, str]
) -> None:
    """By the folder of its weights, as `mad finetune` leaves one, and only what is missing is predicted."""
    weights = after_two_rounds.store.versions.get("scenes@2").path
    assert weights is not None
    models = find_models(after_two_rounds, ["scenes@0", f"path={Path(weights).parent}"])
    assert [model.name for model in models] == ["scenes@0", "scenes@2"]
    drawn = {image.image_id for image in fought[0].images}
    seen = images_seen(after_two_rounds, models)
    assert drawn < seen
    duel = open_duel(after_two_rounds, models, BUDGET)
    assert duel.images
    assert not seen & {image.image_id for image in duel.images}
    report = judge_duel(after_two_rounds, duel, oracle_labels(after_two_rounds, duel), "an oracle")
    assert report.result.images + len(report.dropped) == len(duel.images)
    assert set(Side) | {None} >= {report.result.winner}


def test_the_page_shows_both_maps_beside_peoples_and_loads_nothing(
    after_two_rounds: Project, fought: tuple[Duel, str]
) -> None:
    page = (duel_folder(after_two_rounds, fought[0]) / "duel.html").read_text()
    shown = len(json.loads((duel_folder(after_two_rounds, fought[0]) / "duel.json").read_text())["images"])
    assert page.count('<img alt="shifted of ') == page.count('<img alt="confused of ') == shown
    assert page.count('<img alt="label map of ') == shown
    sources = re.findall(r'(?:src|href)="([^"]{,20})', page)
    assert len(sources) == 4 * shown
    assert all(source.startswith("data:image/jpeg;") for source in sources)


def test_every_duel_is_listed_with_what_it_came_to(
    after_two_rounds: Project, fought: tuple[Duel, str]
) -> None:
    (first, *_) = json.loads(mad_duel(after_two_rounds, "--list", "--json").stdout)
    assert (first["first"], first["second"], first["labelled"]) == ("shifted", "confused", 0)
    assert first["result"]["verdict"] in mad_duel(after_two_rounds, "--list").output


def test_images_without_a_label_map_and_too_many_of_one_class_are_left_out_by_name(
    after_two_rounds: Project, fought: tuple[Duel, str]
) -> None:
    duel = fought[0]
    labelled = oracle_labels(after_two_rounds, duel)
    report = judge_duel(after_two_rounds, duel, labelled[:-1], "people")
    assert report.unlabelled == (duel.images[-1].image_id,)
    one_class = [LabelledImage(item.image, labelled[0].truth) for item in labelled]
    capped = judge_duel(after_two_rounds, duel, one_class, "people")
    assert capped.dropped == tuple(image.image_id for image in duel.images[4:])
    assert [image.image_id for image in capped.images] == [image.image_id for image in duel.images[:4]]
    assert any("left out, since more show one main class" in line for line in duel_lines(capped))
    assert any("too few for any verdict" in line for line in duel_lines(capped))
    with pytest.raises(MadError, match="no label map yet"):
        judge_duel(after_two_rounds, duel, [], "people")


def test_what_a_model_learnt_and_what_a_round_may_yet_learn_is_left_out(
    make_project: MakeProject, scenes: Path, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(scenes / "pool", pool)
    shutil.copy(next((scenes / "s0" / "images").iterdir()), pool / "images" / "known.jpg")
    project = make_project(pool=[{"name": "pool", "images": f"{pool}/images"}])
    models = find_models(project, ["shifted", "scenes@0"])
    scan_with(project, models[0], ())
    learnt = sorted(project.pool)[3]
    weights = tmp_path / "weights"
    weights.mkdir()
    line = DataLine(
        Use.FAILURES, "by-another-name", "pool/images/" + Path(project.pool[learnt].path).name, ""
    )
    (weights / "data.jsonl").write_bytes(encode([line]))
    meta = {
        "version": "scenes@0+hand",
        "path": "w.safetensors",
        "weights": {},
        "data": {"root": str(tmp_path)},
    }
    (weights / "meta.json").write_text(json.dumps(meta))
    (by_hand,) = find_models(project, [f"path={weights}"])
    assert (by_hand.name, by_hand.settings.path) == ("scenes@0+hand", weights / "w.safetensors")
    assert {"pool/known"} <= images_seen(project, models)
    assert learnt not in images_seen(project, models)
    assert learnt in images_seen(project, [models[0], by_hand])
    project.store.rounds.create(1, 0, datetime.now(UTC))
    in_m = sorted(project.pool)[5]
    cell = Provenance("shifted", HOUSE, Role.TARGET, 1, 0.5)
    project.store.choices.record_selection(1, [Candidate(in_m, (cell,))])
    assert in_m in images_seen(project, models)
    project.store.rounds.advance(1, RoundState.CREATED, RoundState.CANCELLED, datetime.now(UTC))
    assert in_m not in images_seen(project, models)


def test_two_models_that_agree_have_no_duel(make_project: MakeProject, scenes: Path) -> None:
    same = {"kind": "folder", "path": str(scenes / "models" / "shifted")}
    models = settings_of(scenes, scenes)["models"] | {"competing": {"one": same, "other": same}}
    project = make_project(models=models)
    answer = mad_duel(project, "one", "other", "--oracle")
    assert isinstance(answer.exception, PoolError)
    assert "they agree on all" in str(answer.exception)
    assert project.store.duels.all() == []


def test_names_that_are_no_two_models_are_refused(after_two_rounds: Project) -> None:
    def refusal(*names: str) -> str:
        answer = mad_duel(after_two_rounds, *names, "--oracle")
        assert isinstance(answer.exception, SettingsError)
        return str(answer.exception)

    assert "a duel is of two models, got 1" in refusal("shifted")
    assert "known: scenes@0, scenes@1, scenes@2, confused, shifted, or path=" in refusal("shifted", "who")
    assert "both called shifted" in refusal("shifted", "shifted")
