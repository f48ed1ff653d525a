"""Rounds and the cross-check: label maps that somebody rejects, corrects, or does not look at."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.checks import open_images
from mad_backend.core.records import Check, ErrorType, Verdict
from mad_backend.core.rounds import NEXT, RoundState
from mad_backend.pool.images import read_label_map
from mad_backend.pool.mask_files import write_mask
from sync.disagreements import settle
from sync.pull import TaskProblem
from sync.pull_checks import CheckProgress
from sync.push import PushItem
from tests.training.conftest import MakeProject, runner
from tests.training.oracle_people import OraclePeople
from training.finetune import failure_images
from training.people import Report
from training.project import Project
from training.rounds import RoundRunner
from training.start import start_round

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class OneRejects(OraclePeople):
    """Knows the truth, but rejects the label maps of `refused` images whatever is drawn."""

    def __init__(self, project: Project, refused: set[str]) -> None:
        super().__init__(project, 3)
        self._store, self._refused = project.store, refused

    def check(self, number: int, items: Sequence[PushItem], report: Report) -> CheckProgress:
        super().check(number, items, report)
        masks, images = self._store.remote.masks(number), [item.image_id for item in items]
        for image_id in self._refused:
            refusal = Check(image_id, masks[image_id].sha256, Verdict.REJECTED, "bob", NOW)
            self._store.checks.record(number, refusal)
        left = open_images(images, masks, self._store.checks.all(number))
        problem = TaskProblem(images[0], 3, "odd")
        return CheckProgress(len(items) - len(left), len(items), {"bob": 8}, (problem,), rejected=tuple(left))


def test_rejected_maps_hold_the_round_until_ops_settle_them_and_dropped_images_leave_it(
    make_project: MakeProject,
) -> None:
    project = make_project()
    start_round(project, None)
    for state in (RoundState.CREATED, RoundState.PREDICTING, RoundState.SELECTING, RoundState.RATING):
        assert runner(project).step(1, state)
        project.store.rounds.advance(1, state, NEXT[state], NOW)
    trained, tested = project.store.choices.failures(1)[0].image_id, project.store.choices.test_set(1)[0]
    waiting = RoundRunner(project, OneRejects(project, {trained, tested}), isolate=False)
    assert waiting.tick()
    found = project.store.rounds.get(1)
    first = min(i for i in {*project.store.remote.masks(1)})
    assert (found.state, found.done, found.total) == (RoundState.CHECKING, 8, 10)
    assert found.note == (
        f"waits for checks: bob 8; 2 maps rejected, `mad disagreements` lists; image {first}: odd"
    )
    assert not waiting.tick()
    settle(project.store, 1, trained, "drop", NOW)
    settle(project.store, 1, tested, "drop", NOW)
    assert waiting.tick()
    assert project.store.rounds.get(1).state is RoundState.FINISHED
    assert {i.image.image_id for i in failure_images(project, 1)} == {
        f.image_id for f in project.store.choices.failures(1)
    } - {trained}
    assert {row.images for row in project.store.versions.evaluations() if row.image_set == "T(1)"} == {3}


def test_a_round_without_cross_check_trains_on_maps_as_drawn(make_project: MakeProject) -> None:
    project = make_project(check={"enabled": False})
    start_round(project, None)
    assert runner(project).tick()
    assert project.store.rounds.get(1).state is RoundState.FINISHED
    assert project.store.checks.all(1) == []


def test_a_map_with_an_error_is_trained_on_as_its_checker_corrected_it(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    for state in (RoundState.CREATED, RoundState.PREDICTING, RoundState.SELECTING, RoundState.RATING):
        assert runner(project).step(1, state)
        project.store.rounds.advance(1, state, NEXT[state], NOW)
    assert runner(project).step(1, RoundState.LABELLING)
    image_id = project.store.choices.failures(1)[0].image_id
    mask = project.store.remote.masks(1)[image_id]
    truth = read_label_map(Path(mask.path))
    wrong = truth.copy()
    wrong[:10] = 255
    sha256 = write_mask(Path(mask.path), wrong)
    project.store.remote.record_mask(1, replace(mask, sha256=sha256))
    assert runner(project).step(1, RoundState.CHECKING)
    verdicts = {c.image_id: c for c in project.store.checks.all(1)}
    corrected = verdicts.pop(image_id)
    assert {c.verdict for c in verdicts.values()} == {Verdict.ACCEPTED}
    assert (corrected.verdict, corrected.errors) == (Verdict.CORRECTED, (ErrorType.VOID,))
    assert corrected.changed_share == pytest.approx((wrong != truth).mean())
    assert corrected.checker != mask.annotator
    (sample,) = (i for i in failure_images(project, 1) if i.image.image_id == image_id)
    np.testing.assert_array_equal(sample.truth.read(), truth)
