"""The scheduler: two jobs that never run twice at once, and that outlive whatever goes wrong."""

import logging
import sqlite3

import pytest

from mad_backend.core.rounds import RoundState
from mad_backend.errors import SettingsError
from sync.client import LabelStudioClient
from tests.training.conftest import MakeProject, runner
from training.project import Project
from training.rounds import RoundRunner
from training.scheduler import Ticker, build_scheduler, new_round
from training.start import start_round


def nobody() -> LabelStudioClient:
    return LabelStudioClient("http://127.0.0.1:1", "token", backoff_s=0.01)


def schedule_of(cron: str | None) -> dict[str, object]:
    return {"tick_s": 0.5, "lease_s": 3, "new_round": cron}


def test_both_jobs_run_once_at_a_time_and_late_ones_are_joined(make_project: MakeProject) -> None:
    project = make_project(schedule=schedule_of("0 22 * * 5"))
    scheduler = build_scheduler(project, nobody(), RoundRunner(project, None))
    jobs = {job.id: job for job in scheduler.get_jobs()}
    assert set(jobs) == {"tick", "new round"}
    for job in jobs.values():
        assert job.max_instances == 1
        assert job.coalesce
        assert job.misfire_grace_time is None
    assert jobs["tick"].trigger.interval.total_seconds() == 0.5
    assert "hour='22'" in str(jobs["new round"].trigger)


def test_without_a_cron_line_rounds_are_started_by_hand(make_project: MakeProject) -> None:
    project = make_project()
    jobs = build_scheduler(project, nobody(), RoundRunner(project, None)).get_jobs()
    assert [job.id for job in jobs] == ["tick"]


@pytest.mark.parametrize("line", ["every night", "0 22 * *", "61 * * * *"])
def test_a_bad_cron_line_is_quoted(make_project: MakeProject, line: str) -> None:
    project = make_project(schedule=schedule_of(line))
    with pytest.raises(SettingsError, match="is not a cron line: ") as caught:
        build_scheduler(project, nobody(), RoundRunner(project, None))
    assert f'schedule.new_round: "{line}"' in str(caught.value)


def test_a_tick_survives_a_broken_database_and_the_next_one_works(
    make_project: MakeProject, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project()
    start_round(project, None)
    ticker = Ticker(project, runner(project))
    path = project.settings.workspace / "mad.sqlite3"
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE rounds RENAME TO away")
    with caplog.at_level(logging.ERROR):
        ticker.look()
    assert "tick failed; the next one tries again" in caplog.text
    with sqlite3.connect(path) as other:
        other.execute("ALTER TABLE away RENAME TO rounds")
    other.close()
    ticker.look()
    assert project.store.rounds.get(1).state is RoundState.FINISHED


def test_between_ticks_only_a_wish_makes_it_look(make_project: MakeProject) -> None:
    project = make_project(schedule={"tick_s": 3600, "lease_s": 3})
    ticker = Ticker(project, RoundRunner(project, None, isolate=False))
    ticker.look()
    waiting = started(project)
    ticker.look()
    assert project.store.rounds.get(waiting).state is RoundState.CREATED
    project.store.remote.want_pull()
    ticker.look()
    assert project.store.rounds.get(waiting).state is RoundState.FAILED, "rating without people"


def started(project: Project) -> int:
    return start_round(project, None).number


def test_a_new_round_that_cannot_start_is_a_warning(
    make_project: MakeProject, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project()
    new_round(project, nobody())
    assert "no new round: " in caplog.text
    assert "127.0.0.1:1" in caplog.text
    assert project.store.rounds.all() == []
