"""A round while its label maps are checked at a real Label Studio, and people draw, delete and reject meanwhile."""

from datetime import UTC, datetime

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import ProjectRole, Verdict
from mad_backend.core.rounds import NEXT, RoundState
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.check_results import choice_of
from mad_backend.label_studio.label_config import VERDICT_TAG
from sync.check_project import check_id
from sync.disagreements import disagreements
from tests.conftest import RunningLabelStudio
from tests.training.conftest import MakeProject, runner
from training.oracles import Oracle, SimulatedCrowd
from training.people import LabelStudioPeople
from training.project import Project
from training.rounds import RoundRunner
from training.start import start_round

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Round:
    """Round 1 of a project, rated; drawn and checked by ann and bob."""

    def __init__(self, project: Project, running: RunningLabelStudio) -> None:
        self.project, self.store, self.running = project, project.store, running
        self.runner = RoundRunner(project, LabelStudioPeople(project, running.admin), isolate=False)
        clients = dict(zip(running.emails[:2], running.raters[:2], strict=True))
        self.crowd = SimulatedCrowd(project, clients)
        start_round(project, None)
        for state in (RoundState.CREATED, RoundState.PREDICTING, RoundState.SELECTING, RoundState.RATING):
            assert runner(project).step(1, state)
            self.store.rounds.advance(1, state, NEXT[state], NOW)

    @property
    def images(self) -> set[str]:
        return {*self.store.choices.test_set(1), *(f.image_id for f in self.store.choices.failures(1))}

    def work(self, role: ProjectRole) -> int:
        return self.crowd.work(1, role, never, lambda: False)

    def look(self) -> bool:
        """One tick's work while checking."""
        return self.runner.step(1, RoundState.CHECKING)


def never(_image_id: str) -> LabelMap:
    raise AssertionError("nobody rates here")


def test_deleted_and_rejected_drawings_are_drawn_and_checked_again(
    make_project: MakeProject, label_studio: RunningLabelStudio
) -> None:
    """Slow: the pool is predicted, and a round's projects are made."""
    found = Round(make_project(rating={"n4": 3}, test_set={"size": 2}), label_studio)
    store = found.store
    assert not found.runner.tick()
    assert found.work(ProjectRole.SEGMENTATION) >= 5
    assert found.runner.tick()
    assert store.rounds.get(1).state is RoundState.CHECKING
    assert store.rounds.get(1).note == "waits for checks"
    assert set(store.remote.masks(1)) == found.images

    first, second, *_ = sorted(found.images)
    label_studio.admin.delete_task(store.remote.tasks(1, ProjectRole.SEGMENTATION)[first])
    assert not found.look()
    assert first not in store.remote.masks(1)
    assert f"image {first}: its label map is gone; it has to be drawn again" in store.rounds.get(1).note
    assert found.work(ProjectRole.SEGMENTATION) >= 1

    mask = store.remote.masks(1)[second]
    author, checker = (
        label_studio.raters[n] for n in ((0, 1) if mask.annotator == label_studio.emails[0] else (1, 0))
    )
    task_id = store.remote.tasks(1, ProjectRole.CHECK)[check_id(mask)]
    checker.create_annotation(task_id, [choice_of(VERDICT_TAG, Verdict.REJECTED)])
    assert not found.look()
    assert found.work(ProjectRole.CHECK) >= 4
    assert not found.look()
    assert (store.rounds.get(1).done, store.rounds.get(1).total) == (4, 5)
    assert "1 map rejected, `mad disagreements` lists" in store.rounds.get(1).note
    (dispute,) = (d for d in disagreements(store, 1, label_studio.server.url) if d.is_open)
    assert (dispute.image_id, dispute.checking) == (
        second,
        f"{label_studio.server.url}/projects/{remote_id(found, ProjectRole.CHECK)}/data?task={task_id}",
    )

    drawn = Oracle.of(found.project).drawing(second).copy()
    drawn[0, 0] = 255
    author.update_annotation(mask.annotation_id, regions_of(drawn, found.project.labels))
    assert not found.look()
    assert author.next_task(remote_id(found, ProjectRole.CHECK)) is None
    assert found.work(ProjectRole.CHECK) >= 1
    label_studio.admin.delete_project(remote_id(found, ProjectRole.SEGMENTATION))
    assert found.look()
    assert {c.image_id for c in store.checks.all(1) if c.verdict is not Verdict.REJECTED} == found.images
    assert set(store.final_masks(1)) == found.images


def remote_id(found: Round, role: ProjectRole) -> int:
    remote = found.store.remote.project(1, role)
    assert remote
    return remote.project_id
