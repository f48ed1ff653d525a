"""Raters at a real Label Studio: seats, progress, keys, what they can see, and those who leave."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console
from typer.testing import CliRunner

from mad_backend.core.records import Failure, ProjectRole
from mad_backend.errors import SettingsError, StoreError
from mad_backend.settings import RatingSettings
from mad_backend.store.store import Store
from sync.cli import app
from sync.client import LabelStudioClient
from sync.pull_ratings import pull_ratings
from sync.rater_table import print_raters
from sync.raters import rater_progress, replace_rater, set_up_raters
from sync.rating_project import are_ratings_pushed, push_ratings
from tests.conftest import RunningLabelStudio
from tests.sync.rating_tasks import answer, make_project, project_id, rate_all
from tests.sync.test_push import LABELS, items, shelf, silent

ANN, BOB, CAT, DAN = "ann@example.com", "bob@example.com", "cat@example.com", "dan@example.com"
BLIND = RatingSettings(raters=2, blind=True, people=(ANN, BOB))


def push(running: RunningLabelStudio, store: Store, count: int, rating: RatingSettings) -> list[int]:
    """Ids of the projects."""
    pushed = push_ratings(
        running.admin, store, 1, "MAD round 1: rating", LABELS, items(count), rating, report=silent
    )
    return [p.project_id for p in pushed]


def leave(
    running: RunningLabelStudio, store: Store, leaver: str, by: str, *, discard: bool = False, wanted: int = 3
) -> int:
    return replace_rater(
        running.admin,
        store,
        1,
        leaver,
        by,
        discard=discard,
        wanted=wanted,
        now=datetime.now(UTC),
        report=silent,
    )


def test_blind_raters_have_a_project_each_with_the_same_pictures_in_another_order(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    steps: list[tuple[int, int]] = []
    assert not are_ratings_pushed(store, 1, BLIND, items(4))
    first, second = push_ratings(
        label_studio.admin,
        store,
        1,
        "MAD round 1: rating",
        LABELS,
        items(4),
        BLIND,
        report=lambda *s: steps.append(s),
    )
    assert are_ratings_pushed(store, 1, BLIND, items(4))
    assert not are_ratings_pushed(store, 1, BLIND, items(5))
    assert (steps[0], steps[-1]) == ((0, 8), (8, 8))
    assert (first.seat, second.seat) == (ANN, BOB)
    assert first.project_id != second.project_id
    assert len(label_studio.admin.uploads(shelf(label_studio, store))) == 8
    orders = []
    for project in (first, second):
        shown = label_studio.admin.task_data(project.project_id)
        orders.append([data["image"] for _, data in shown])
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    assert {t.project_id for t in store.remote.projects(1, ProjectRole.RATING)} == {
        first.project_id,
        second.project_id,
    }
    # A round goes on as it began, whatever settings say by now.
    assert push(label_studio, store, 4, RatingSettings(raters=2)) == [first.project_id, second.project_id]


def test_in_a_seats_project_only_its_owner_counts_and_others_are_told(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = {seat: make_project(label_studio, store, 2, raters=1, seat=seat) for seat in (ANN, BOB)}
    ann, bob, *_ = label_studio.raters
    ann.create_annotation(tasks[ANN]["img-000"], answer("1"), lead_time=4)
    ann.create_annotation(tasks[ANN]["img-001"], answer("ood"), lead_time=8)
    stray = bob.create_annotation(tasks[ANN]["img-000"], answer("5"))
    progress = pull_ratings(label_studio.admin, store, 1, wanted=2)
    assert (progress.done, progress.total, progress.by_person) == (1, 2, {ANN: 2})
    assert [(p.task_id, p.text) for p in progress.problems] == [
        (
            tasks[ANN]["img-000"],
            f"annotation {stray.annotation_id} by {BOB} does not count: the project is that of {ANN}",
        )
    ]
    bob.create_annotation(tasks[BOB]["img-000"], answer("3"), lead_time=2)
    assert pull_ratings(label_studio.admin, store, 1, wanted=2).done == 2
    assert {(r.image_id, r.rater, r.score) for r in store.remote.ratings(1)} == {
        ("img-000", ANN, 1),
        ("img-000", BOB, 3),
        ("img-001", ANN, None),
    }
    rows = rater_progress(store, 1, "http://there")
    assert [(r.rater, r.answered, r.total, r.seconds) for r in rows] == [(ANN, 2, 2, 6), (BOB, 1, 2, 2)]
    assert rows[1].address == f"http://there/projects/{project_id(store, BOB)}/data?labeling=1"
    assert rows[1].last is not None


def test_a_newcomer_takes_over_a_seat_with_the_task_that_the_leaver_had_open(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    seats = {seat: make_project(label_studio, store, 3, raters=1, seat=seat) for seat in (ANN, BOB)}
    ann, bob, cat, _ = label_studio.raters
    opened = ann.next_task(project_id(store, ANN))
    assert opened
    ann.create_annotation(opened.task_id, answer("2"))
    assert ann.next_task(project_id(store, ANN)), "and now holds Label Studio's lock on another"
    assert leave(label_studio, store, ANN, CAT, wanted=2) == 2
    assert sorted(rate_all(cat, project_id(store, ANN), "4")) == sorted(
        {*seats[ANN].values()} - {opened.task_id}
    )
    rate_all(bob, project_id(store, BOB), "1")
    late = ann.create_annotation(opened.task_id, answer("5"))
    progress = pull_ratings(label_studio.admin, store, 1, wanted=2)
    assert (progress.done, progress.by_person) == (3, {ANN: 1, CAT: 2, BOB: 3})
    (told,) = progress.problems
    assert told.text == f"annotation {late.annotation_id} by {ANN} does not count: {ANN} had left before"
    with pytest.raises(StoreError, match="has a seat in round 1 already"):
        leave(label_studio, store, BOB, CAT, wanted=2)
    with pytest.raises(StoreError, match="cannot come in"):
        leave(label_studio, store, BOB, ANN, wanted=2)


def test_a_seats_discarded_answers_are_given_anew_by_the_newcomer(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 2, raters=1, seat=ANN)
    ann, _, cat, _ = label_studio.raters
    rate_all(ann, project_id(store, ANN), "1")
    assert pull_ratings(label_studio.admin, store, 1, wanted=1).done == 2
    assert leave(label_studio, store, ANN, CAT, discard=True, wanted=1) == 2
    assert pull_ratings(label_studio.admin, store, 1, wanted=1).done == 0
    assert sorted(rate_all(cat, project_id(store, ANN), "3")) == sorted(tasks.values())
    progress = pull_ratings(label_studio.admin, store, 1, wanted=1)
    assert (progress.done, progress.by_person, progress.problems) == (2, {CAT: 2}, ())


def test_answers_that_are_kept_count_on_and_discarded_ones_are_given_by_somebody_else(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    tasks = make_project(label_studio, store, 2)
    ann, bob, cat, dan = label_studio.raters
    for rater in (ann, bob, cat):
        rate_all(rater, project_id(store), "2")
    assert pull_ratings(label_studio.admin, store, 1).done == 2
    assert leave(label_studio, store, ANN, DAN) == 0
    assert pull_ratings(label_studio.admin, store, 1).done == 2
    assert dan.next_task(project_id(store)) is None
    assert leave(label_studio, store, ANN, DAN, discard=True) == 2, "thought better of it"
    assert leave(label_studio, store, ANN, DAN, discard=True) == 2, "may be repeated"
    assert pull_ratings(label_studio.admin, store, 1).by_person == {BOB: 2, CAT: 2}
    assert bob.next_task(project_id(store)) is None
    assert sorted(rate_all(dan, project_id(store), "5")) == sorted(tasks.values())
    progress = pull_ratings(label_studio.admin, store, 1)
    assert (progress.done, progress.by_person) == (2, {BOB: 2, CAT: 2, DAN: 2})
    rows = rater_progress(store, 1, "http://there", ["eva@example.com"])
    assert [(r.rater, r.answered, r.left is not None) for r in rows] == [
        (ANN, 2, True),
        (BOB, 2, False),
        (CAT, 2, False),
        (DAN, 2, False),
        ("eva@example.com", 0, False),
    ]
    console = Console(record=True, width=200)
    print_raters(rows, progress, console)
    told = console.export_text()
    assert "2 of 2 images are rated" in told
    assert "replaced by dan@example.com; what they had answered does not count" in told
    assert "2.5" in told


def test_who_cannot_change_places_is_told_why(label_studio: RunningLabelStudio, store: Store) -> None:
    task = make_project(label_studio, store, 1)["img-000"]
    label_studio.raters[0].create_annotation(task, answer("2"))
    for leaver, by, why in (
        (BOB, DAN, f"{BOB} does not rate in round 1; who does: {ANN}"),
        (ANN, ANN, "cannot come in"),
        (ANN, "nobody@example.com", "does not know nobody@example.com; have them sign up"),
    ):
        with pytest.raises(StoreError, match=why):
            leave(label_studio, store, leaver, by)
    leave(label_studio, store, ANN, DAN)
    with pytest.raises(StoreError, match=f"left round 1 already and was replaced by {DAN}"):
        leave(label_studio, store, ANN, CAT)
    store.choices.record_cut(1, [Failure("img-000", 2.0)], [], {})
    with pytest.raises(StoreError, match="S and T of round 1 are drawn"):
        leave(label_studio, store, DAN, CAT)


def test_a_person_whom_label_studio_does_not_know_gets_no_project(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    rating = RatingSettings(raters=2, blind=True, people=(ANN, "eva@example.com"))
    with pytest.raises(SettingsError, match=r"rating\.people: .* does not know eva@example\.com"):
        push(label_studio, store, 1, rating)
    assert store.remote.projects(1, ProjectRole.RATING) == []


def test_nothing_that_a_rater_can_ask_for_tells_image_model_or_score(
    label_studio: RunningLabelStudio, store: Store
) -> None:
    (number,) = push(label_studio, store, 2, RatingSettings())
    rater = label_studio.raters[0]
    seen = json.dumps(
        [
            rater.get(f"/api/projects/{number}/", "looking"),
            rater.get("/api/tasks/", "looking", {"project": number, "fields": "all"}),
            rater.get(f"/api/projects/{number}/next", "looking"),
            [rater.get(f"/api/tasks/{t.task_id}/", "looking") for t in rater.tasks(number)],
            rater.get(f"/api/projects/{shelf(label_studio, store)}/", "looking"),
            sorted(label_studio.admin.uploads(shelf(label_studio, store))),
        ]
    )
    for secret in ("secret", "discrepancy", "target", "competing", "img"):
        assert secret not in seen
    project = rater.get(f"/api/projects/{number}/", "looking")
    assert (project["model_version"] or "", project["show_skip_button"]) == ("", False)
    assert project["sampling"] == "Uniform sampling"


def test_enter_submits_for_raters_whose_own_token_we_hold(label_studio: RunningLabelStudio) -> None:
    keys = "/api/current-user/hotkeys/"
    ann, bob, *_ = label_studio.raters
    mine = {"custom_hotkeys": {"regions:hide": {"key": "h", "active": True}}}
    ann.send("PATCH", keys, "setting a key", mine)
    bob.send("PATCH", keys, "setting a key", {"custom_hotkeys": {}})
    tokens = {
        "Ann@example.com": SecretStr(label_studio.tokens[0]),
        BOB: SecretStr(label_studio.tokens[2]),
        CAT: SecretStr("0" * 40),
    }

    def connect(token: SecretStr) -> LabelStudioClient:
        return LabelStudioClient(label_studio.server.url, token.get_secret_value(), backoff_s=0.01)

    wrong, unknown = set_up_raters(tokens, connect)
    assert wrong == f"MAD_RATER_TOKENS: the token given for {BOB} is that of {CAT}"
    assert unknown.startswith(f"MAD_RATER_TOKENS, {CAT}: checking the token")
    assert not any(token.get_secret_value() in wrong + unknown for token in tokens.values())
    found = ann.get(keys, "looking")["custom_hotkeys"]
    assert set(found) == {"regions:hide", "annotation:annotation:submit"}
    assert bob.get(keys, "looking")["custom_hotkeys"] == {}
    ann.send("PATCH", keys, "setting a key", {"custom_hotkeys": {}})


CONFIG = """
workspace: runs
database: sqlite:///{database}
label_set: labels.yaml
pool: [{{name: d, images: photos}}]
s0: [{{name: s, images: photos, masks: masks}}]
t0: [{{name: t, images: photos, masks: masks}}]
models:
  name: f
  target: {{kind: hf, path: weights}}
  competing: {{g: {{kind: folder, path: maps, classes: {{path: road}}}}}}
label_studio: {{url: "{url}"}}
rating: {{raters: 1}}
"""


def test_the_commands_show_raters_and_replace_one(
    label_studio: RunningLabelStudio, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = make_project(label_studio, store, 2, raters=1)
    label_studio.raters[0].create_annotation(tasks["img-000"], answer("2"), lead_time=7.25)
    config = tmp_path / "mad.yaml"
    config.write_text(CONFIG.format(database=tmp_path / "mad.sqlite3", url=label_studio.server.url))
    monkeypatch.setenv("MAD_LABEL_STUDIO_TOKEN", label_studio.server.token)
    monkeypatch.setenv("COLUMNS", "200")

    def mad(*arguments: str) -> str:
        answered = CliRunner().invoke(app, [*arguments, "--config", str(config)], catch_exceptions=False)
        return " ".join(answered.output.split())

    stream = f"{label_studio.server.url}/projects/{project_id(store)}/data?labeling=1"
    shown = mad("raters")
    assert f"{ANN} │ 1 │ 2 │ 7.2" in shown
    assert stream in shown
    assert "1 of 2 images are rated" in shown
    said = mad("replace-rater", ANN, "--by", DAN, "--discard", "--round", "1")
    assert said == (
        f"round 1: {DAN} rates in place of {ANN}, whose answers do not count any more; 1 tasks were opened again. "
        f"{DAN} goes on at {stream}"
    )
    shown = mad("raters", "--round", "1")
    assert f"{DAN} │ 0 │ 2 │ │ │ {stream}" in shown
    assert "0 of 2 images are rated" in shown
    assert f"replaced by {DAN}; what they had answered does not count" in shown
