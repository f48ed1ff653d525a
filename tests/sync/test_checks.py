"""The cross-check on a real Label Studio: nobody gets a label map of their own, and every answer means one thing."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mad_backend.core.records import Verdict
from mad_backend.label_studio.answers import regions_of
from mad_backend.pool.images import read_label_map
from mad_backend.store.store import Store
from sync.check_project import are_pushed, check_items
from sync.pull_checks import CheckProgress
from tests.conftest import RunningLabelStudio
from tests.sync.conftest import MakeCrosscheck
from tests.sync.crosscheck import Crosscheck, accept, changed, check_of, name
from tests.sync.test_push import LABELS, picture


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
