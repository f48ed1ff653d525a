"""Pulling ratings from a real Label Studio: what counts, what is read, and what is told of the rest."""

from datetime import UTC, datetime

import pytest

from mad_backend.core.records import AnswerKind, Failure, ProjectRole
from mad_backend.errors import LabelStudioError, StoreError
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pull import PullProgress
from sync.pull_ratings import pull_ratings
from tests.conftest import RunningLabelStudio
from tests.sync.rating_tasks import CountingClient, answer, make_project, project_id, rate_all


def texts(progress: PullProgress) -> list[str]:
    return [problem.text for problem in progress.problems]


def test_three_people_rate_through_the_label_stream(label_studio: RunningLabelStudio, store: Store) -> None:
    tasks = make_project(label_studio, store, 3)
    assert pull_ratings(label_studio.admin, store, 1) == PullProgress(0, 3, {})
    for client, grade in zip(label_studio.raters[:3], "123", strict=True):
        assert sorted(rate_all(client, project_id(store), grade)) == sorted(tasks.values())
    emails = label_studio.emails[:3]
    expected = PullProgress(3, 3, dict.fromkeys(emails, 3))
    assert pull_ratings(label_studio.admin, store, 1) == expected
    found = store.remote.ratings(1)
    assert {(r.image_id, r.rater, r.score) for r in found} == {
        (f"img-{n:03d}", email, score)
        for n in range(3)
        for email, score in zip(emails, (1, 2, 3), strict=True)
    }
    assert {r.lead_time_s for r in found} == {2.5}


def test_a_new_process_asks_for_changes_only_and_reads_only_those(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 3)
    client = CountingClient(label_studio)
    label_studio.raters[0].create_annotation(tasks["img-000"], answer("4"))
    pull_ratings(client, store, 1)
    url = str(store.remote._db.engine.url)
    project = f"/api/projects/{project_id(store)}/"
    client.asked.clear()
    fresh_process = Store(url)
    assert pull_ratings(client, fresh_process, 1).by_person == {"ann@example.com": 1}
    assert client.asked == [project, "/api/tasks/"]
    label_studio.raters[1].create_annotation(tasks["img-001"], answer("2"))
    client.asked.clear()
    assert pull_ratings(client, fresh_process, 1).by_person == {"ann@example.com": 1, "bob@example.com": 1}
    assert client.asked == [project, "/api/tasks/", "/api/users/", "/api/tasks/"]
    fresh_process.close()


def test_a_project_read_as_a_whole_gives_what_listing_gives_and_no_export_stays_listed(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    ids = {email: user_id for user_id, email in label_studio.admin.people().items()}
    given = [
        {"result": answer(grade), "completed_by": ids[email], "lead_time": 1.5}
        for email, grade in zip(label_studio.emails[:3], ("1", "5", "ood"), strict=True)
    ]
    tasks = make_project(label_studio, store, 120, annotations=given)
    client = CountingClient(label_studio)
    exports = f"/api/projects/{project_id(store)}/exports/"
    label_studio.raters[3].create_annotation(tasks["img-007"], [], was_cancelled=True)
    assert pull_ratings(client, store, 1) == PullProgress(
        120, 120, dict.fromkeys(label_studio.emails[:3], 120)
    )
    assert len([path for path in client.asked if path.startswith(exports)]) == 1
    assert "/api/tasks/" not in client.asked
    assert client.get(exports, "looking") == []
    exported = store.answers.all(1)
    some = list(tasks)[:45]
    store.remote.record_read(1, ProjectRole.RATING, dict.fromkeys(some))
    store.answers.replace(1, {tasks[i]: () for i in some})
    client.asked.clear()
    assert pull_ratings(client, store, 1).done == 120
    assert [path for path in client.asked if path.startswith(exports)] == []
    assert store.answers.all(1) == exported
    assert {a.kind for a in exported} == {AnswerKind.RATING, AnswerKind.VETO, AnswerKind.SKIPPED}


def test_changed_and_deleted_ratings_are_followed(label_studio: RunningLabelStudio, store: Store) -> None:
    task = make_project(label_studio, store, 2)["img-001"]
    ann, bob, *_ = label_studio.raters
    first = ann.create_annotation(task, answer("2"))
    second = bob.create_annotation(task, answer("4"))
    assert pull_ratings(label_studio.admin, store, 1, wanted=2).done == 1
    ann.update_annotation(first.annotation_id, answer("5"))
    pull_ratings(label_studio.admin, store, 1, wanted=2)
    assert [r.score for r in store.remote.ratings(1)] == [5, 4]
    bob.delete_annotation(second.annotation_id)
    assert pull_ratings(label_studio.admin, store, 1, wanted=2) == PullProgress(0, 2, {"ann@example.com": 1})


def test_a_deleted_task_takes_its_ratings_along_is_told_and_forgotten(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 2)
    for task in tasks.values():
        label_studio.raters[0].create_annotation(task, answer("1"))
    assert pull_ratings(label_studio.admin, store, 1, wanted=1).done == 2
    label_studio.admin.delete_task(tasks["img-000"])
    own = {"image": "/x", "overlay": "/x", "legend": "", "item": "one that a person added"}
    label_studio.admin.import_tasks(project_id(store), [{"data": own}])
    progress = pull_ratings(label_studio.admin, store, 1, wanted=1)
    assert (progress.done, progress.total) == (1, 2)
    assert [(p.image_id, p.task_id) for p in progress.problems] == [("img-000", tasks["img-000"])]
    assert "was deleted in Label Studio; it is sent anew" in progress.problems[0].text
    assert [r.image_id for r in store.remote.ratings(1)] == ["img-001"]
    assert list(store.remote.tasks(1, ProjectRole.RATING)) == ["img-001"]


def test_a_project_that_was_deleted_or_never_made_is_an_error_and_its_ratings_stay(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    with pytest.raises(StoreError, match="push before"):
        pull_ratings(label_studio.admin, store, 1)
    task = make_project(label_studio, store, 1)["img-000"]
    label_studio.raters[0].create_annotation(task, answer("1"))
    pull_ratings(label_studio.admin, store, 1)
    label_studio.admin.delete_project(project_id(store))
    with pytest.raises(LabelStudioError, match=r"was deleted in Label Studio; `mad retry 1`") as caught:
        pull_ratings(label_studio.admin, store, 1)
    assert caught.value.status == 404
    assert len(store.remote.ratings(1)) == 1
    assert store.remote.tasks(1, ProjectRole.RATING) == {}


def test_skips_drafts_empty_and_unreadable_answers_do_not_count_and_are_told(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 3)
    ann, bob, cat, dan = label_studio.raters
    for task in tasks.values():
        ann.create_annotation(task, [], was_cancelled=True)
    empty = bob.create_annotation(tasks["img-000"], [])
    odd = cat.create_annotation(tasks["img-000"], answer("7"))
    for client in (bob, cat, dan):
        client.create_annotation(tasks["img-001"], answer("3"))
    draft = {"result": answer("2")}
    bob.send("POST", f"/api/tasks/{tasks['img-002']}/drafts?project={project_id(store)}", "drafting", draft)
    progress = pull_ratings(label_studio.admin, store, 1)
    assert (progress.done, progress.total) == (1, 3)
    skipped = "skipped by ann@example.com; it has 0 of 3 ratings, and who skipped it is not asked again"
    told = {(p.image_id, p.text.partition(":")[0]) for p in progress.problems}
    assert told == {
        ("img-000", f"annotation {empty.annotation_id} by bob@example.com is empty; it does not count"),
        ("img-000", f"annotation {odd.annotation_id} by cat@example.com is not a rating; it does not count"),
        ("img-000", skipped),
        ("img-002", skipped),
    }
    assert {p.task_id for p in progress.problems} == {tasks["img-000"], tasks["img-002"]}
    assert pull_ratings(label_studio.admin, store, 1) == progress, "told again while it stands"


def test_the_first_people_and_the_latest_answer_of_each_count_and_every_veto(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 2)
    ann, bob, cat, dan = label_studio.raters
    for task in tasks.values():
        for rater, grade in ((ann, "1"), (bob, "2"), (ann, "3"), (cat, "4")):
            rater.create_annotation(task, answer(grade))
    dan.create_annotation(tasks["img-000"], answer("5"))
    dan.create_annotation(tasks["img-001"], answer("ood"))
    assert pull_ratings(label_studio.admin, store, 1).done == 2
    by_image: dict[str, list[int | None]] = {}
    for r in store.remote.ratings(1):
        by_image.setdefault(r.image_id, []).append(r.score)
    assert by_image == {"img-000": [3, 2, 4], "img-001": [3, 2, 4, None]}
    assert len(store.answers.all(1)) == 10


def test_answers_of_users_who_were_deleted_count_under_the_name_they_had(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 2)
    zoe = LabelStudioClient(
        label_studio.server.url, label_studio.server.create_user("zoe@example.com", label_studio.password)
    )
    for task in tasks.values():
        by_zoe = zoe.create_annotation(task, answer("2"))
        if task == tasks["img-000"]:
            pull_ratings(label_studio.admin, store, 1)
    label_studio.admin.send("DELETE", f"/api/users/{by_zoe.user_id}/", "deleting a user")
    label_studio.raters[0].create_annotation(tasks["img-000"], answer("3"))
    progress = pull_ratings(label_studio.admin, store, 1)
    assert progress.by_person == {"zoe@example.com": 1, "deleted user": 1, "ann@example.com": 1}
    (told,) = texts(progress)
    assert told == f"annotation {by_zoe.annotation_id} by deleted user counts, whoever that was"


def test_after_the_cut_nothing_changes_any_more_and_that_is_said(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    task = make_project(label_studio, store, 1)["img-000"]
    ann, *_ = label_studio.raters
    mine = ann.create_annotation(task, answer("2"))
    pull_ratings(label_studio.admin, store, 1, wanted=1)
    store.choices.record_cut(1, [Failure("img-000", 2.0)], [], {})
    ann.update_annotation(mine.annotation_id, answer("5"))
    client = CountingClient(label_studio)
    assert pull_ratings(client, store, 1, wanted=1) == PullProgress(
        1, 1, {"ann@example.com": 1}, is_frozen=True
    )
    assert client.asked == []
    assert [r.score for r in store.remote.ratings(1)] == [2]
    assert not store.remote.record_ratings(1, [])
    assert len(store.remote.ratings(1)) == 1


def test_answered_twins_of_an_interrupted_import_are_told_until_they_are_gone(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 1)
    data = {
        "image": "/x",
        "overlay": "/x",
        "legend": "",
        "item": store.remote.item_key(1, ProjectRole.RATING, "img-000"),
    }
    label_studio.admin.import_tasks(project_id(store), [{"data": data}])
    twin = label_studio.admin.tasks(project_id(store))[-1].task_id
    label_studio.raters[0].create_annotation(twin, answer("1"))
    for _ in range(2):
        progress = pull_ratings(label_studio.admin, store, 1)
        assert (progress.done, progress.total) == (0, 1)
        (told,) = texts(progress)
        assert told.startswith(f"task {twin} is a twin of task {tasks['img-000']}")


def test_a_pull_from_a_project_whose_labels_changed_is_refused(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    make_project(label_studio, store, 1)
    there = label_studio.admin.project(project_id(store))
    assert there
    changed = there.label_config.replace("5 excellent", "5 great")
    label_studio.admin.patch_project(project_id(store), label_config=changed)
    with pytest.raises(LabelStudioError, match="labelling interface was changed"):
        pull_ratings(label_studio.admin, store, 1)


def test_times_of_change_survive_a_new_push_of_the_same_tasks(store: Store) -> None:
    role, noon = ProjectRole.RATING, datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
    store.remote.record_tasks(1, role, {"a": 1, "b": 2, "c": 3})
    store.remote.record_read(1, role, {"a": noon, "b": noon, "c": None})
    assert store.remote.read_times(1, role) == {1: noon, 2: noon}
    store.remote.record_tasks(1, role, {"a": 1, "b": 9, "c": 3})
    assert store.remote.read_times(1, role) == {1: noon}
    store.remote.record_read(1, role, {"a": None})
    assert store.remote.read_times(1, role) == {}


def test_a_task_of_somebody_else_under_the_id_of_a_deleted_one_is_not_taken_for_it(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 3)
    pull_ratings(label_studio.admin, store, 1)
    newest = max(tasks.values())
    (image,) = (i for i, task_id in tasks.items() if task_id == newest)
    label_studio.admin.delete_task(newest)
    data = {"image": "/none.jpg", "overlay": "/none.jpg", "legend": "", "item": "theirs"}
    label_studio.admin.import_tasks(project_id(store), [{"data": data}])
    (theirs,) = (t.task_id for t in label_studio.admin.tasks(project_id(store)) if t.item == "theirs")
    assert theirs == newest, "Label Studio on SQLite gives an id again"
    label_studio.raters[0].create_annotation(theirs, answer("4"))
    progress = pull_ratings(label_studio.admin, store, 1)
    assert [(p.image_id, "deleted" in p.text) for p in progress.problems] == [(image, True)]
    assert store.remote.ratings(1) == []
