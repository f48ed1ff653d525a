"""Rounds from start to end: states in order, what S and T may hold, and every way a step can go wrong."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mad_backend.core.rounds import RoundState
from sync.client import LabelStudioClient
from tests.training.conftest import MakeProject, runner
from training.cli import app
from training.finetune import failure_images
from training.people import LabelStudioPeople
from training.project import Project
from training.rounds import HEAVY, RoundRunner
from training.start import start_round

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = {"shifted", "confused", "scenes@0", "scenes@1", "scenes@2"}


def children() -> set[int]:
    """Process ids of this process's children, of every thread."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so: Callable[[], object], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Ticking:
    """A tick with isolated heavy steps in a thread of its own; `child` is the process of its step."""

    def __init__(self, project: Project) -> None:
        before = children()
        self.moved: bool | None = None
        self._thread = threading.Thread(target=self._run, args=(project,))
        self._thread.start()
        wait_until(lambda: children() - before)
        (self.child,) = children() - before

    def _run(self, project: Project) -> None:
        self.moved = runner(project, isolate=True).tick()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()


def test_a_round_passes_every_state_in_order(
    make_project: MakeProject, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project()
    start_round(project, None)
    with caplog.at_level(logging.INFO, "training.rounds"):
        assert runner(project).tick()
    moves = [r.getMessage().partition(": ")[2] for r in caplog.records if " -> " in r.getMessage()]
    states = [s for s in RoundState if s.is_working or s is RoundState.FINISHED]
    assert [m for m in moves if "@" not in m] == [f"{a} -> {b}" for a, b in pairwise(states)]
    assert not runner(project).tick()


@pytest.mark.parametrize("number", [1, 2])
def test_s_and_t_are_parts_of_m_without_a_common_or_vetoed_image(finished: Project, number: int) -> None:
    choices = finished.store.choices
    selected = {c.image_id for c in choices.selection(number)}
    failures = [f.image_id for f in choices.failures(number)]
    test_set = choices.test_set(number)
    vetoed = {r.image_id for r in finished.store.remote.ratings(number) if r.is_veto}
    assert len(failures) == 6
    assert len(test_set) == 4
    assert {*failures, *test_set} <= selected
    assert not set(failures) & set(test_set)
    assert not vetoed & {*failures, *test_set}
    assert len({*failures, *test_set}) == 10


def test_s_has_the_lowest_mean_opinion_scores_outside_t(finished: Project) -> None:
    given: dict[str, list[int]] = {}
    for rating in finished.store.remote.ratings(1):
        given.setdefault(rating.image_id, []).append(rating.score or 0)
    failures = finished.store.choices.failures(1)
    out = {*finished.store.choices.test_set(1), *finished.store.choices.vetoed()}
    means = sorted(sum(scores) / 3 for image_id, scores in given.items() if image_id not in out)
    assert all(len(scores) == 3 for scores in given.values())
    assert [f.mos for f in failures] == pytest.approx(means[:6])


def test_vetoed_images_are_those_without_an_object(finished: Project) -> None:
    vetoed = {r.image_id for r in finished.store.remote.ratings(1) if r.is_veto}
    assert vetoed <= finished.store.choices.vetoed()
    for image_id in vetoed:
        assert not finished.store.choices.spent().isdisjoint({image_id})


def test_a_second_round_leaves_out_images_of_the_first(finished: Project) -> None:
    choices = finished.store.choices
    spent = {f.image_id for f in choices.failures(1)} | set(choices.test_set(1))
    spent |= {r.image_id for r in finished.store.remote.ratings(1) if r.is_veto}
    assert not spent & {c.image_id for c in choices.selection(2)}


def test_a_second_round_trains_on_both_s_and_on_no_test_set(finished: Project) -> None:
    choices = finished.store.choices
    trained = {i.image.image_id for i in failure_images(finished, 2)}
    assert trained == {f.image_id for n in (1, 2) for f in choices.failures(n)}
    assert not trained & {*choices.test_set(1), *choices.test_set(2)}
    assert {i.image.image_id for i in failure_images(finished, 1)} == {
        f.image_id for f in choices.failures(1)
    }


def test_every_model_is_measured_on_t0_and_on_every_t_and_every_version_on_every_s(finished: Project) -> None:
    measured = {(row.model, row.image_set) for row in finished.store.versions.evaluations()}
    tests = {(m, s) for m in MODELS for s in ("T(0)", "T(1)", "T(2)")}
    assert measured == tests | {(m, s) for m in MODELS if "@" in m for s in ("S(1)", "S(2)")}


def test_versions_and_decisions_are_recorded(finished: Project) -> None:
    versions = finished.store.versions.all()
    assert [v.version for v in versions] == ["scenes@0", "scenes@1", "scenes@2"]
    assert all(v.path and Path(v.path).is_file() for v in versions[1:])
    for number, version in ((1, versions[1]), (2, versions[2])):
        outcome = finished.store.rounds.get(number).outcome
        assert outcome
        first, *checks, _ = outcome.splitlines()
        assert first.startswith("promoted: " if version.promoted_at else "kept: ")
        assert [line.partition(": ")[0] in ("ok", "FAILED") for line in checks] == [True] * 3
        assert f"T({number})" in checks[1]


def test_a_failing_step_is_recorded_with_its_error_and_retry_goes_on(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    project.store.rounds.advance(1, RoundState.CREATED, RoundState.PREDICTING, NOW)
    weights = project.settings.workspace / "gone"
    competing = project.settings.models.competing["shifted"]
    broken = competing.model_copy(update={"path": weights})
    models = project.settings.models.model_copy(
        update={"competing": {**project.settings.models.competing, "shifted": broken}}
    )
    settings = project.settings.model_copy(update={"models": models})
    assert runner(Project(project.config, settings, project.labels, project.store)).tick()
    found = project.store.rounds.get(1)
    assert found.state is RoundState.FAILED
    assert found.came_from is RoundState.PREDICTING
    assert found.error == (
        f'model "shifted": there is no {weights}; wanted a folder of label maps named "<image id>.png", .npy or .npz'
    )
    assert not runner(project).tick(), "a failed round is left alone"
    answer = CliRunner().invoke(app, ["retry", "1", "--config", str(project.config)])
    assert answer.exit_code == 0, answer.output
    assert "failed -> predicting" in answer.output
    assert runner(project).tick()
    assert project.store.rounds.get(1).state is RoundState.FINISHED
    assert project.store.rounds.get(1).error is None


def test_an_unexpected_error_fails_the_round_and_not_the_runner(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    (project.settings.workspace / "predictions").write_text("a file where a folder should be")
    assert runner(project).tick()
    found = project.store.rounds.get(1)
    assert found.state is RoundState.FAILED
    assert found.error
    assert "predictions" in found.error


@pytest.mark.parametrize("word", ["pause", "cancel"])
def test_pause_and_cancel_end_a_running_step(make_project: MakeProject, word: str) -> None:
    project = make_project()
    start_round(project, None)
    ticking = Ticking(project)
    assert project.store.rounds.get(1).state is RoundState.PREDICTING
    answer = CliRunner().invoke(app, [word, "--config", str(project.config)])
    assert answer.exit_code == 0, answer.output
    ticking.join(20)
    assert not is_alive(ticking.child)
    wanted = {"pause": RoundState.PAUSED, "cancel": RoundState.CANCELLED}[word]
    assert project.store.rounds.get(1).state is wanted
    assert not runner(project).tick()
    if word == "pause":
        assert CliRunner().invoke(app, ["resume", "--config", str(project.config)]).exit_code == 0
        assert project.store.rounds.get(1).state is RoundState.PREDICTING
    else:
        start_round(project, None)
        assert project.store.rounds.get(2).state is RoundState.CREATED


def test_a_killed_step_fails_the_round_and_the_next_try_finishes_it(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    ticking = Ticking(project)
    os.kill(ticking.child, signal.SIGKILL)
    ticking.join(20)
    assert ticking.moved
    found = project.store.rounds.get(1)
    assert found.state is RoundState.FAILED
    assert found.error
    assert found.error.startswith("predicting ended with status -9")
    project.store.rounds.advance(1, RoundState.FAILED, RoundState.PREDICTING, NOW)
    assert runner(project).step(1, RoundState.PREDICTING)


def test_an_isolated_step_reports_the_error_its_process_printed(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    for before, after in (
        (RoundState.CREATED, RoundState.PREDICTING),
        (RoundState.PREDICTING, RoundState.SELECTING),
        (RoundState.SELECTING, RoundState.RATING),
        (RoundState.RATING, RoundState.LABELLING),
        (RoundState.LABELLING, RoundState.CHECKING),
        (RoundState.CHECKING, RoundState.TRAINING),
    ):
        project.store.rounds.advance(1, before, after, NOW)
    assert RoundState.TRAINING in HEAVY
    assert runner(project, isolate=True).tick()
    found = project.store.rounds.get(1)
    assert found.state is RoundState.FAILED
    assert found.error == (
        "training ended with status 1: error: round 1 has no labelled image in S; nothing to fine-tune on"
    )


def test_a_round_under_another_lease_is_left_alone_until_the_lease_ends(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    project.store.rounds.claim(1, "elsewhere:1", datetime.now(UTC), 60)
    assert not runner(project).tick()
    assert project.store.rounds.get(1).state is RoundState.CREATED
    project.store.rounds.claim(1, "elsewhere:1", datetime.now(UTC) - timedelta(seconds=100), 60)
    client = LabelStudioClient("http://127.0.0.1:1", "token", backoff_s=0.01)
    assert RoundRunner(project, LabelStudioPeople(project, client), isolate=False).tick()
    assert project.store.rounds.get(1).state is RoundState.RATING


def test_while_label_studio_is_away_the_round_waits(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    client = LabelStudioClient("http://127.0.0.1:1", "token", backoff_s=0.01)
    waiting = RoundRunner(project, LabelStudioPeople(project, client), isolate=False)
    assert waiting.tick(), "it went as far as rating"
    assert not waiting.tick()
    found = project.store.rounds.get(1)
    assert found.state is RoundState.RATING
    assert found.note.startswith("waits for Label Studio: ")
    assert "127.0.0.1:1" in found.note
    assert runner(project).tick()
    assert project.store.rounds.get(1).state is RoundState.FINISHED


def test_an_image_that_will_not_open_is_named_and_left_out(
    make_project: MakeProject, tmp_path: Path, scenes: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for path in sorted((scenes / "pool" / "images").iterdir())[:12]:
        (pictures / path.name).write_bytes(path.read_bytes())
    (pictures / "pool_00003.jpg").write_bytes(b"not a picture")
    pool = {"name": "pool", "images": str(pictures), "masks": str(scenes / "pool" / "hidden_masks")}
    project = make_project(pool=[pool])
    start_round(project, None)
    for state in (RoundState.PREDICTING, RoundState.SELECTING):
        assert runner(project).step(1, state)
    assert list(project.store.choices.unreadable()) == ["pool/pool_00003"]
    assert "pool_00003.jpg" in project.store.choices.unreadable()["pool/pool_00003"]
    assert "pool/pool_00003" not in {c.image_id for c in project.store.choices.selection(1)}


def test_a_pool_that_gives_an_empty_m_fails_with_what_to_do(make_project: MakeProject) -> None:
    windows = {name: [0.999, 1.0] for name in ("house", "tree", "car", "person", "boat", "animal", "balloon")}
    project = make_project(selection={"n3": 1, "windows": windows})
    start_round(project, None)
    assert runner(project).tick()
    found = project.store.rounds.get(1)
    assert found.came_from is RoundState.SELECTING
    assert found.error
    assert "M is empty" in found.error
