"""The cross-check's project on a real Label Studio: what is sent, and mended when it is sent again."""

from pathlib import Path

import pytest

from mad_backend.core.records import Check, ProjectRole, Verdict
from mad_backend.errors import CorruptFileError, StoreError
from mad_backend.store.store import Store
from sync.pull_checks import CheckProgress, pull_checks
from tests.conftest import RunningLabelStudio
from tests.sync.conftest import MakeCrosscheck
from tests.sync.crosscheck import Crosscheck, accept, name
from tests.sync.test_push import LABELS


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
