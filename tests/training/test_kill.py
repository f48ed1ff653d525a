"""kill -9 in the middle of scoring, of pushes, of pulls and of fine-tuning, then the same command again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mad_backend.core.records import ProjectRole
from mad_backend.core.rounds import RoundState
from sync.client import LabelStudioClient
from tests.conftest import RunningLabelStudio
from tests.training.conftest import MakeProject
from training.oracles import SimulatedCrowd
from training.people import LabelStudioPeople
from training.project import Project
from training.rounds import RoundRunner
from training.start import start_round
from training.steps import load_item

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
ROLES = {
    RoundState.RATING: ProjectRole.RATING,
    RoundState.LABELLING: ProjectRole.SEGMENTATION,
    RoundState.CHECKING: ProjectRole.CHECK,
}


class Driver:
    """`mad schedule` as ops run it, and three simulated people who answer through Label Studio."""

    def __init__(self, project: Project, label_studio: RunningLabelStudio) -> None:
        self.project = project
        self.store = project.store
        self.root = project.settings.workspace
        self.server = label_studio
        self.crowd = SimulatedCrowd(project, people_of(label_studio))

    @contextmanager
    def scheduler(self) -> Iterator["subprocess.Popen[bytes]"]:
        environment = {
            **os.environ,
            "MAD_LABEL_STUDIO_URL": self.server.server.url,
            "MAD_LABEL_STUDIO_TOKEN": self.server.server.token,
        }
        command = [sys.executable, "-m", "training.cli", "schedule", "--config", str(self.project.config)]
        with (self.root / "schedule.log").open("ab") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def kill_when(self, reached: Callable[[], bool], *, people_rate: bool = False) -> None:
        """Runs the scheduler until `reached`, then kills it with SIGKILL at that moment; people may rate meanwhile."""
        with self.scheduler() as process:
            until = time.monotonic() + TIMEOUT_S
            while not reached():
                assert process.poll() is None, (self.root / "schedule.log").read_text()
                assert time.monotonic() < until, self.store.rounds.get(1)
                if people_rate and self.state() is RoundState.RATING:
                    self.let_people_work()
                time.sleep(0.002)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    def state(self) -> RoundState:
        return self.store.rounds.get(1).state

    def let_people_work(self) -> None:
        role = ROLES.get(self.state())
        if role and self.store.remote.tasks(1, role):
            answer(self.project, self.crowd, role)

    def finish(self) -> None:
        with self.scheduler() as process:
            until = time.monotonic() + TIMEOUT_S
            while not self.state().is_over:
                assert process.poll() is None, (self.root / "schedule.log").read_text()
                assert self.state() is not RoundState.FAILED, self.store.rounds.get(1).error
                assert time.monotonic() < until, self.store.rounds.get(1)
                self.let_people_work()
                time.sleep(0.2)


def people_of(label_studio: RunningLabelStudio) -> dict[str, LabelStudioClient]:
    return dict(zip(label_studio.emails[:3], label_studio.raters[:3], strict=True))


def answer(project: Project, crowd: SimulatedCrowd, role: ProjectRole) -> None:
    with project.predictions.open(project.target_key(project.target_of(project.store.rounds.get(1)))) as pack:
        crowd.work(1, role, lambda image_id: load_item(project, pack, image_id)[1], lambda: False)


def run_undisturbed(project: Project, label_studio: RunningLabelStudio) -> None:
    start_round(project, label_studio.admin)
    runner = RoundRunner(project, LabelStudioPeople(project, label_studio.admin), isolate=False)
    crowd = SimulatedCrowd(project, people_of(label_studio))
    for role in ROLES.values():
        runner.tick()
        answer(project, crowd, role)
    runner.tick()
    assert project.store.rounds.get(1).state is RoundState.FINISHED


def task_count(project: Project, label_studio: RunningLabelStudio, role: ProjectRole) -> int:
    remote = project.store.remote.project(1, role)
    assert remote
    return len(label_studio.admin.tasks(remote.project_id))


@pytest.fixture
def pair(make_project: MakeProject) -> tuple[Project, Project]:
    return make_project("undisturbed"), make_project("killed")


def test_a_round_killed_in_scoring_push_pull_and_training_ends_as_an_undisturbed_one(
    pair: tuple[Project, Project], label_studio: RunningLabelStudio
) -> None:
    """Slow: two whole rounds, and eight starts of the scheduler."""
    undisturbed, killed = pair
    run_undisturbed(undisturbed, label_studio)
    start_round(killed, label_studio.admin)
    driver = Driver(killed, label_studio)
    store, root = killed.store, killed.settings.workspace

    packs = root / "predictions"
    driver.kill_when(lambda: any(p.stat().st_size for p in packs.rglob("*.pack")))
    assert driver.state() is RoundState.PREDICTING

    driver.kill_when(lambda: store.rounds.get(1).note.startswith("sending M"))
    assert driver.state() is RoundState.RATING
    assert not store.remote.tasks(1, ProjectRole.RATING), "the push was over before the kill"

    driver.kill_when(lambda: bool(store.remote.tasks(1, ProjectRole.SEGMENTATION)), people_rate=True)
    driver.let_people_work()

    drawn = len(store.choices.failures(1)) + len(store.choices.test_set(1))
    driver.kill_when(lambda: len(store.remote.masks(1)) > 0)
    assert driver.state() is RoundState.LABELLING
    assert len(store.remote.masks(1)) < drawn, "the pull was over before the kill"

    driver.kill_when(lambda: store.rounds.get(1).note.startswith("sending label maps"))
    assert driver.state() is RoundState.CHECKING
    assert not store.remote.tasks(1, ProjectRole.CHECK), "the push was over before the kill"
    driver.kill_when(lambda: bool(store.remote.tasks(1, ProjectRole.CHECK)))
    driver.let_people_work()
    driver.kill_when(lambda: len(store.checks.all(1)) > 0)
    assert driver.state() is RoundState.CHECKING
    assert len(store.checks.all(1)) < drawn, "the pull was over before the kill"

    checkpoints = root / "training"
    driver.kill_when(lambda: any(checkpoints.rglob("result.json")))
    assert driver.state() is RoundState.TRAINING
    assert len(list(checkpoints.rglob("result.json"))) == 1, "the grid was over before the kill"
    driver.finish()

    assert store.choices.selection(1) == undisturbed.store.choices.selection(1)
    assert store.choices.failures(1) == undisturbed.store.choices.failures(1)
    assert store.choices.test_set(1) == undisturbed.store.choices.test_set(1)
    assert task_count(killed, label_studio, ProjectRole.RATING) == len(store.choices.selection(1))
    assert task_count(killed, label_studio, ProjectRole.SEGMENTATION) == drawn
    assert task_count(killed, label_studio, ProjectRole.CHECK) == drawn
    for project in pair:
        assert len(project.store.remote.masks(1)) == drawn
        assert [(c.image_id, c.verdict, c.errors) for c in project.store.checks.all(1)] == [
            (c.image_id, c.verdict, c.errors) for c in store.checks.all(1)
        ]
        authors = {i: mask.annotator for i, mask in project.store.remote.masks(1).items()}
        assert all(check.checker != authors[check.image_id] for check in project.store.checks.all(1))
    assert {m.sha256 for m in store.final_masks(1).values()} == {
        m.sha256 for m in undisturbed.store.final_masks(1).values()
    }
    weights = [Path(p.store.versions.get("scenes@1").path or "").read_bytes() for p in pair]
    assert weights[0] == weights[1]
