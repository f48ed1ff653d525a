"""The cost ledger of a made-up round in a real store, and the stop rule where rounds are started."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mad_backend.core.panels import counted
from mad_backend.core.records import (
    Answer,
    AnswerKind,
    Candidate,
    Check,
    Departure,
    Failure,
    HumanMask,
    Provenance,
    Role,
    Verdict,
)
from mad_backend.core.rounds import NEXT, RoundState
from mad_backend.core.work import Spent, Work
from mad_backend.store.store import Store
from tests.training.conftest import MakeProject
from tests.training.test_scheduler import nobody
from training.cli import app
from training.costs import build_ledger, stop_line
from training.costs_files import costs_page
from training.project import Project
from training.scenes import CAR, HOUSE
from training.scheduler import new_round

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
COSTS = {"per_hour": 36, "currency": "EUR", "idle_s": 100}


def work_through_a_round(store: Store, scores: dict[str, int]) -> None:
    """Round 1 with images of `scores` and a vetoed one in M, the best but one in T; ann left, and bob came for her."""
    store.rounds.create(1, 7, NOON, "scenes@0")
    cells = ((HOUSE, Role.TARGET), (CAR, Role.COMPETITOR))
    candidates = [
        Candidate(image_id, tuple(Provenance("shifted", *cell, rank, 1 / rank) for cell in cells))
        for rank, image_id in enumerate((*scores, "veto"), start=1)
    ]
    store.choices.record_selection(1, candidates)
    answers = [
        Answer(i, n, n, "ann", AnswerKind.RATING, NOON, score, 20.0)
        for n, (i, score) in enumerate(scores.items())
    ]
    answers += [
        Answer(
            a.image_id,
            a.task_id,
            10 + a.task_id,
            "bob",
            AnswerKind.RATING,
            NOON + timedelta(1),
            a.score,
            40.0,
        )
        for a in answers
    ]
    answers.append(Answer("veto", 8, 18, "bob", AnswerKind.VETO, NOON, None, 3600.0))
    answers.append(Answer("veto", 8, 19, "eve", AnswerKind.SKIPPED, NOON, None, None))
    store.answers.replace(1, {a.task_id: [b for b in answers if b.task_id == a.task_id] for a in answers})
    store.answers.record_departure(1, Departure("ann", "bob", discarded=True, at=NOON))
    store.remote.record_ratings(1, counted(answers, store.answers.departures(1), 1))
    *failures, test = sorted(scores, key=lambda i: scores[i])
    store.choices.record_cut(1, [Failure(i, scores[i]) for i in failures], [test], {"veto": "bob"})
    for image_id in scores:
        store.remote.record_mask(1, HumanMask(image_id, "m.png", "aa", "cat", 1, lead_time_s=90.0))
        store.checks.record(1, Check(image_id, "aa", Verdict.ACCEPTED, "dan", NOON, lead_time_s=None))
    store.checks.settle(1, Check(failures[0], "bb", Verdict.DROPPED, "", NOON))
    for state in list(NEXT):
        store.rounds.advance(1, state, NEXT[state], NOON)


@pytest.fixture
def worked(make_project: MakeProject) -> Project:
    project = make_project(costs=COSTS, rating={"n4": 2, "raters": 1})
    work_through_a_round(project.store, {"one": 1, "two": 4, "three": 5})
    return project


def test_a_round_in_the_store_is_counted_as_people_worked(worked: Project) -> None:
    (found,) = build_ledger(worked).rounds
    assert found.spent == {
        # ann's answers do not count any more, but were paid for; bob's hour before the veto is cut to 100 s.
        Work.RATING: Spent(8, 1, 3 * 20 + 3 * 40 + 100),
        Work.LABELLING: Spent(3, 0, 270),
        Work.CHECKING: Spent(3, 3, 0),
    }
    assert [(p.person, p.spent.pieces, p.median_s, p.vetoes) for p in found.people] == [
        ("ann", 3, 20, 0),
        ("bob", 4, 40, 1),
        ("eve", 1, None, 0),
        ("cat", 3, 90, 0),
        ("dan", 3, None, 0),
    ]
    assert (found.selected, found.failures, found.confirmed, found.test_set) == (4, 2, 1, 1)
    assert (found.hours, found.gain) == (None, None)
    assert found.last_mos == 4
    model = found.models["shifted"]
    assert (model.images, model.judged, model.good, model.vetoed, model.failures) == (4, 3, 2, 1, 2)
    assert set(found.cells.values()) == {model}


def test_rounds_of_oracles_and_their_gain_are_counted_too(finished: Project) -> None:
    ledger = build_ledger(finished)
    for found in ledger.rounds:
        number = found.number
        assert found.spent[Work.RATING].pieces == len(finished.store.remote.ratings(number))
        assert found.spent[Work.LABELLING].pieces == len(finished.store.remote.masks(number))
        assert found.last_mos == finished.store.choices.failures(number)[-1].mos
        assert found.gain
        assert found.gain.image_set == f"T({number})"
    assert ledger.forecast
    assert ledger.forecast.rounds == (1, 2)
    assert finished.store.rounds.get(2).stop == stop_line(finished), "told when the round ended"


def costs(project: Project, *options: str) -> str:
    answer = CliRunner().invoke(
        app, ["costs", *options, "--config", str(project.config)], env={"COLUMNS": "250"}
    )
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_the_command_prints_people_models_money_forecast_and_what_the_rule_says(worked: Project) -> None:
    worked.store.checks.record(1, Check("one", "aa", Verdict.ACCEPTED, "dan", NOON, lead_time_s=30.0))
    text = costs(worked, "--cells", "--forecast")
    row = next(line for line in text.splitlines() if "bob" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "1",
        "rating",
        "bob",
        "4",
        "",
        "40.0",
        "220",
        "1",
    ]
    assert "cost, EUR" in text
    assert "an answer counts for at most 100 s (costs.idle_s)" in text
    assert "3 answers came without a time" in text
    assert "stop rule: round 1 ran out of failures: image 2 of those rated worst has MOS 4.00" in text
    # 4 ratings of 280/7 s, 3 maps of 90 s, 3 checks of 30 s: 520 s, at 36 EUR an hour.
    assert (
        "4 ratings in 0.04 h, 3 label maps in 0.07 h, 3 checks in 0.03 h; together 0.14 h (5.20 EUR)" in text
    )
    assert "gain: none was measured yet" in text
    assert "house" in text


def test_json_and_page_hold_everything_and_escape_every_name(worked: Project, tmp_path: Path) -> None:
    evil = "<img src=http://192.0.2.1/x>"
    worked.store.remote.record_mask(1, HumanMask("one", "m.png", "aa", evil, 1, lead_time_s=90.0))
    told = json.loads(costs(worked, "--json", "--out", str(tmp_path / "costs.html")))
    (found,) = told["rounds"]
    assert found["work"]["rating"] == {"answers": 8, "unknown": 1, "seconds": 280.0, "hours": 8 * 40 / 3600}
    assert found["work"]["checking"] == {"answers": 3, "unknown": 3, "seconds": None, "hours": None}
    assert [(c["class"], c["role"], c["false_positive_share"]) for c in found["cells"]] == [
        ("house", "target", 2 / 3),
        ("car", "competitor", 2 / 3),
    ]
    assert told["forecast"]["failures"] == 1
    page = (tmp_path / "costs.html").read_text()
    assert evil not in page
    assert "&lt;img src=http://192.0.2.1/x&gt;" in page
    assert "ran out of failures" in page


def test_before_any_round_there_is_nothing_to_count(make_project: MakeProject) -> None:
    project = make_project()
    assert costs(project) == "no round has chosen its images yet; `mad new-round` starts one\n"
    ledger = build_ledger(project)
    assert (ledger.rounds, ledger.forecast, ledger.stop) == ((), None, ())
    page = costs_page(ledger, project.labels.names, project.settings.costs)
    assert "no round has chosen its images yet" in page


@pytest.mark.parametrize(
    ("scores", "stop", "said"),
    [
        (
            {"one": 1, "two": 4, "three": 5},
            {},
            "image 2 of those rated worst has MOS 4.00, above 3 (stop.mos)",
        ),
        ({"one": 1, "two": 3, "three": 5}, {}, None),
        ({"one": 1, "two": 4, "three": 5}, {"mos": None}, None),
    ],
)
def test_the_scheduler_starts_no_round_that_the_stop_rule_speaks_against(
    make_project: MakeProject,
    caplog: pytest.LogCaptureFixture,
    scores: dict[str, int],
    stop: dict[str, Any],
    said: str | None,
) -> None:
    project = make_project(rating={"n4": 2, "raters": 1}, stop=stop)
    work_through_a_round(project.store, scores)
    assert project.store.rounds.get(1).state is RoundState.FINISHED
    with caplog.at_level(logging.WARNING):
        new_round(project, nobody())
    assert "no new round" in caplog.text, "nobody is at the server either"
    assert ("127.0.0.1:1" in caplog.text) is (said is None)
    assert (said or "no new round: ") in caplog.text
    assert stop_line(project) == (f"round 1 ran out of failures: {said}" if said else None)


def test_status_report_and_who_starts_a_round_by_hand_are_told(
    worked: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked.store.rounds.conclude(1, "promoted: good", stop_line(worked))
    monkeypatch.setenv("MAD_LABEL_STUDIO_TOKEN", "secret")
    reason = "round 1 ran out of failures: image 2 of those rated worst"
    for command, told in (
        ("status", f"stop rule, when round 1 ended: {reason}"),
        ("report", f"stop rule, when round 1 ended: {reason}"),
        ("new-round", f"the stop rule speaks against another round: {reason}"),
    ):
        answer = CliRunner().invoke(app, [command, "--config", str(worked.config)], env={"COLUMNS": "250"})
        assert told in answer.output
