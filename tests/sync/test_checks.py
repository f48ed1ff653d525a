"""The cross-check on a real Label Studio: nobody gets a label map of their own, and every answer means one thing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Check, ProjectRole, Verdict
from mad_backend.errors import CorruptFileError, StoreError
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.check_results import choice_of
from mad_backend.label_studio.label_config import ERRORS_TAG, VERDICT_TAG
from mad_backend.pool.images import read_label_map
from mad_backend.store.store import Store
from sync.check_project import are_pushed, check_id, check_items, push_checks
from sync.client import LabelStudioClient
from sync.pull_checks import CheckProgress, pull_checks
from sync.pull_masks import pull_masks
from sync.push import PushItem
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.test_push import LABELS, items, picture, silent

Answer = list[dict[str, Any]]


def name(n: int) -> str:
    return f"secret-name-{n:03d}"


def changed(label_map: LabelMap) -> LabelMap:
    """Eight pixels of dog where a cat was."""
    other = label_map.copy()
    other[12:14, 44:48] = 2
    return other


def check_of(verdict: str, label_map: LabelMap | None = None, *errors: str) -> Answer:
    named = [choice_of(ERRORS_TAG, *errors)] if errors else []
    return [
        choice_of(VERDICT_TAG, verdict),
        *named,
        *(regions_of(label_map, LABELS) if label_map is not None else []),
    ]


class Crosscheck:
    """A round whose label maps are drawn: image n by the person `authors` names (0 ann, 1 bob, ...)."""

    def __init__(self, running: RunningLabelStudio, store: Store, root: Path, authors: Sequence[int]) -> None:
        self.running, self.store, self.root = running, store, root
        self.photos: list[PushItem] = items(len(authors))
        self.images = [photo.image_id for photo in self.photos]
        push_segmentation(
            running.admin, store, 1, "Drawn", LABELS, self.photos, model_version="f0", report=silent
        )
        tasks = store.remote.tasks(1, ProjectRole.SEGMENTATION)
        self.drawings = [
            running.raters[author].create_annotation(tasks[name(n)], regions_of(picture(n)[1], LABELS))
            for n, author in enumerate(authors)
        ]
        self.pull_masks()

    def pull_masks(self) -> None:
        pull_masks(self.running.admin, self.store, 1, LABELS, size_of=lambda _: (60, 80), root=self.root)

    def push(self) -> None:
        wanted = check_items(self.store, 1, self.photos)
        push_checks(self.running.admin, self.store, 1, "Cross-check", LABELS, wanted, report=silent)

    def pull(self) -> CheckProgress:
        return pull_checks(self.running.admin, self.store, 1, LABELS, self.images, root=self.root)

    @property
    def project_id(self) -> int:
        project = self.store.remote.project(1, ProjectRole.CHECK)
        assert project
        return project.project_id

    def task(self, n: int) -> int:
        return self.store.remote.tasks(1, ProjectRole.CHECK)[check_id(self.store.remote.masks(1)[name(n)])]

    def checks(self) -> dict[str, Check]:
        return {check.image_id: check for check in self.store.checks.all(1)}

    def work(self, client: LabelStudioClient, answer: Callable[[int], Answer]) -> list[int]:
        """Answers what the label stream gives; which images that were."""
        known = {self.task(n): n for n in range(len(self.images))}
        given = []
        while task := client.next_task(self.project_id):
            given.append(known[task.task_id])
            client.create_annotation(task.task_id, answer(given[-1]), lead_time=20.5)
        return given


MakeCrosscheck = Callable[..., Crosscheck]


@pytest.fixture
def crosscheck(label_studio: RunningLabelStudio, store: Store, tmp_path: Path) -> MakeCrosscheck:
    def make(*authors: int) -> Crosscheck:
        made = Crosscheck(label_studio, store, tmp_path / "masks", authors)
        made.push()
        return made

    return make


def accept(n: int) -> Answer:
    return check_of("accepted", picture(n)[1])


def test_nobody_is_given_a_label_map_of_their_own_and_each_is_checked_once(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    ann, bob, cat, _ = label_studio.raters
    made = crosscheck(0, 0, 0, 1)
    assert made.pull() == CheckProgress(0, 4, {})
    assert made.work(ann, accept) == [3]
    assert sorted(made.work(bob, accept)) == [0, 1, 2]
    assert made.work(cat, accept) == []
    progress = made.pull()
    assert progress == CheckProgress(4, 4, {"ann@example.com": 1, "bob@example.com": 3})
    assert made.pull() == progress
    assert {c.verdict for c in made.checks().values()} == {Verdict.ACCEPTED}
    assert made.store.final_masks(1) == made.store.remote.masks(1)


def test_the_checker_starts_from_the_drawn_map_and_nothing_names_its_author(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0)
    opened = label_studio.raters[1].get(f"/api/projects/{made.project_id}/next", "opening a task")
    (prediction,) = opened["predictions"]
    assert prediction["model_version"] == "drawn"
    assert prediction["result"] == regions_of(picture(0)[1], LABELS)
    assert opened["annotations"] == []
    assert "secret" not in str(opened)


def test_word_and_painting_together_make_the_verdict(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0, 0, 0, 0, 0)
    answers = [
        accept(0),
        check_of("corrected", changed(picture(1)[1]), "wrong class", "boundary"),
        check_of("accepted", changed(picture(2)[1]), "void"),
        check_of("corrected", picture(3)[1], "missing"),
        check_of("rejected", picture(4)[1]),
    ]
    assert sorted(made.work(label_studio.raters[1], lambda n: answers[n])) == [0, 1, 2, 3, 4]
    progress = made.pull()
    assert (progress.done, progress.rejected) == (4, (name(4),))
    found = [made.checks()[name(n)] for n in range(5)]
    assert [c.verdict for c in found] == ["accepted", "corrected", "corrected", "accepted", "rejected"]
    assert {c.lead_time_s for c in found} == {20.5}
    assert [c.errors for c in found] == [(), ("boundary", "wrong class"), ("void",), ("missing",), ()]
    assert [c.changed_share for c in found] == [0, 8 / 4800, 8 / 4800, 0, 0]
    assert [c.notes for c in found] == [
        (),
        (),
        ("called accepted, but it was changed; as changed it counts",),
        ("called corrected, but nothing was changed",),
        ("no type of error was chosen",),
    ]
    final = made.store.final_masks(1)
    for n in range(5):
        expected = changed(picture(n)[1]) if n in (1, 2) else picture(n)[1]
        np.testing.assert_array_equal(read_label_map(Path(final[name(n)].path)), expected)


def test_an_answer_of_the_author_does_not_count_and_others_still_get_the_task(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    ann, bob, cat, _ = label_studio.raters
    made = crosscheck(0)
    ann.create_annotation(made.task(0), accept(0))
    for _ in range(2):
        progress = made.pull()
        assert (progress.done, progress.by_person) == (0, {})
        (problem,) = progress.problems
        assert problem.text == "ann@example.com, who drew it, checked it too; that does not count"
    assert made.work(bob, accept) == [0]
    assert made.work(cat, accept) == made.work(ann, accept) == []
    assert made.pull() == CheckProgress(1, 1, {"bob@example.com": 1})
    assert made.checks()[name(0)].notes == (problem.text,)


def test_a_task_that_people_skip_is_given_to_others(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0)
    label_studio.raters[1].create_annotation(made.task(0), [], was_cancelled=True)
    assert made.work(label_studio.raters[2], accept) == []
    assert made.pull().done == 0
    assert made.work(label_studio.raters[0], accept) == []
    assert made.work(label_studio.raters[2], accept) == [0]
    assert made.pull().done == 1


def test_an_answer_that_changes_or_goes_is_followed(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    _, bob, cat, _ = label_studio.raters
    made = crosscheck(0)
    first = bob.create_annotation(made.task(0), check_of("rejected", picture(0)[1], "void"))
    assert made.pull().rejected == (name(0),)
    bob.update_annotation(first.annotation_id, accept(0))
    assert made.pull() == CheckProgress(1, 1, {"bob@example.com": 1})
    cat.create_annotation(made.task(0), check_of("corrected", changed(picture(0)[1]), "boundary"))
    assert made.pull().by_person == {"cat@example.com": 1}
    cat.delete_annotation(made.checks()[name(0)].annotation_id or 0)
    assert made.pull().by_person == {"bob@example.com": 1}
    bob.delete_annotation(first.annotation_id)
    assert made.pull() == CheckProgress(0, 1, {})
    assert made.checks() == {}
    assert made.work(cat, accept) == [0]


def test_answers_that_are_no_check_are_told_until_they_are_mended(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0)
    bob = label_studio.raters[1]
    odd = bob.create_annotation(made.task(0), regions_of(picture(0)[1], LABELS))
    for _ in range(2):
        progress = made.pull()
        assert progress.done == 0
        (problem,) = progress.problems
        assert problem.text.startswith(
            f"annotation {odd.annotation_id} is no check: check: wanted one verdict of"
        )
    bob.update_annotation(odd.annotation_id, accept(0))
    assert made.pull() == CheckProgress(1, 1, {"bob@example.com": 1})


def test_a_label_map_drawn_again_is_checked_again(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    ann, bob, cat, _ = label_studio.raters
    made = crosscheck(0, 0, 0)
    rejected, unanswered = made.task(0), made.task(1)
    bob.create_annotation(rejected, check_of("rejected", picture(0)[1], "missing"))
    bob.create_annotation(made.task(2), accept(2))
    assert made.pull().done == 1
    for n in range(2):
        ann.update_annotation(made.drawings[n].annotation_id, regions_of(changed(picture(n)[1]), LABELS))
    made.pull_masks()
    assert not are_pushed(made.store, 1, check_items(made.store, 1, made.photos))
    progress = made.pull()
    assert (progress.done, progress.rejected) == (1, ())
    made.push()
    assert are_pushed(made.store, 1, check_items(made.store, 1, made.photos))
    there = {task.task_id for task in label_studio.admin.tasks(made.project_id)}
    assert there == {rejected, made.task(0), made.task(1), made.task(2)}
    assert unanswered not in there
    assert made.work(ann, accept) == []
    assert sorted(made.work(cat, lambda n: check_of("accepted", changed(picture(n)[1])))) == [0, 1]
    assert made.pull() == CheckProgress(3, 3, {"bob@example.com": 1, "cat@example.com": 2})
    assert [(c.image_id, c.verdict) for c in made.store.checks.all(1)] == [
        (name(0), "rejected"),
        (name(0), "accepted"),
        (name(1), "accepted"),
        (name(2), "accepted"),
    ]


def test_a_second_push_adds_nothing_and_no_photo_is_uploaded_twice(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0, 1)
    before = made.store.remote.tasks(1, ProjectRole.CHECK)
    drawn_in = made.store.remote.project(1, ProjectRole.SEGMENTATION)
    assert drawn_in
    made.push()
    assert made.store.remote.tasks(1, ProjectRole.CHECK) == before
    assert len(label_studio.admin.tasks(made.project_id)) == 2
    assert len(label_studio.admin.uploads(drawn_in.project_id)) == 2
    assert label_studio.admin.uploads(made.project_id) == {}


def test_twins_of_an_interrupted_import_are_removed(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0)
    (task,) = label_studio.admin.tasks(made.project_id)
    skip = {"id": 1, "result": [], "was_cancelled": True, "ground_truth": False}
    twin = {"data": {"image": "/x", "item": task.item}, "annotations": [skip]}
    label_studio.admin.import_tasks(made.project_id, [twin])
    made.push()
    assert [t.task_id for t in label_studio.admin.tasks(made.project_id)] == [task.task_id]
    label_studio.admin.import_tasks(made.project_id, [twin])
    *_, other = label_studio.admin.tasks(made.project_id)
    label_studio.raters[1].create_annotation(other.task_id, [], was_cancelled=True)
    made.push()
    assert len(label_studio.admin.tasks(made.project_id)) == 2, "what a person skipped is left for people"


def test_deleted_tasks_are_sent_again_and_a_deleted_project_is_made_anew(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0, 0)
    made.work(label_studio.raters[1], accept)
    assert made.pull().done == 2
    label_studio.admin.delete_task(made.task(0))
    assert [p.image_id for p in made.pull().problems] == [name(0)]
    made.push()
    assert made.pull().done == 1
    assert made.work(label_studio.raters[1], accept) == [0]
    before = made.project_id
    label_studio.admin.delete_project(before)
    made.push()
    assert made.project_id != before
    assert made.pull().done == 0


def test_a_map_of_somebody_the_server_does_not_know_is_checked_once_by_anybody_else(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    made = Crosscheck(label_studio, store, tmp_path / "masks", [0])
    mask = store.remote.masks(1)[name(0)]
    store.remote.record_mask(1, replace(mask, annotator="user-99", annotator_id=99))
    made.push()
    assert made.work(label_studio.raters[0], accept) == [0]
    assert made.work(label_studio.raters[1], accept) == []
    assert made.pull().done == 1


def test_what_was_settled_before_anybody_looked_is_not_sent_and_a_drop_is_done(
    crosscheck: MakeCrosscheck, label_studio: RunningLabelStudio
) -> None:
    made = crosscheck(0, 0)
    masks = made.store.remote.masks(1)
    for n, verdict in ((0, Verdict.AUTHOR), (1, Verdict.DROPPED)):
        at = made.drawings[n].created_at
        made.store.checks.settle(1, Check(name(n), masks[name(n)].sha256, verdict, "", at))
    assert made.pull().done == 2
    made.push()
    assert label_studio.admin.tasks(made.project_id) == []
    assert made.pull() == CheckProgress(2, 2, {})
    assert list(made.store.final_masks(1)) == [name(0)]


def test_a_label_map_file_that_changed_is_not_sent(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    made = Crosscheck(label_studio, store, tmp_path / "masks", [0])
    Path(store.remote.masks(1)[name(0)].path).write_bytes(b"something else")
    with pytest.raises(CorruptFileError, match="is not the label map that was pulled"):
        made.push()


def test_pulling_before_pushing_is_an_error(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="round 1 has no check project; push before"):
        pull_checks(label_studio.admin, store, 1, LABELS, [], root=tmp_path)
