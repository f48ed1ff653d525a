"""Unattended rounds: APScheduler calls `tick` on an interval and starts new rounds by cron."""

import logging
import signal
import time

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from mad_backend.errors import MadError, SettingsError
from sync.client import LabelStudioClient
from training.costs import stop_line
from training.people import LabelStudioPeople
from training.project import Project
from training.rounds import RoundRunner
from training.start import start_round

log = logging.getLogger(__name__)

WISH_S = 2.0
"""How often a webhook's word that something changed is looked for."""


def run_scheduler(project: Project, client: LabelStudioClient) -> None:
    """Runs until SIGTERM or Ctrl-C; a step in the middle is ended, and goes on at the next start."""
    runner = RoundRunner(project, LabelStudioPeople(project, client))
    scheduler = build_scheduler(project, client, runner)

    def end(_signal: int, _frame: object) -> None:
        runner.stopping.set()
        scheduler.shutdown(wait=False)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    log.info("looking at rounds every %g s", project.settings.schedule.tick_s)
    scheduler.start()


def build_scheduler(project: Project, client: LabelStudioClient, runner: RoundRunner) -> BlockingScheduler:
    """Two jobs, neither ever twice at once. What is due is read from the database; nothing is kept here.

    Raises SettingsError when schedule.new_round is not a cron line.
    """
    ticker = Ticker(project, runner)
    schedule = project.settings.schedule
    scheduler = BlockingScheduler(timezone="UTC")
    common = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    look_s = min(schedule.tick_s, WISH_S)
    scheduler.add_job(ticker.look, IntervalTrigger(seconds=look_s), id="tick", **common)
    if schedule.new_round:
        try:
            cron = CronTrigger.from_crontab(schedule.new_round, timezone="UTC")
        except ValueError as error:
            raise SettingsError(
                f'schedule.new_round: "{schedule.new_round}" is not a cron line: {error}'
            ) from None
        scheduler.add_job(lambda: new_round(project, client), cron, id="new round", **common)
    return scheduler


class Ticker:
    """Ticks every schedule.tick_s seconds, and sooner when a webhook asked for it."""

    def __init__(self, project: Project, runner: RoundRunner) -> None:
        self._project = project
        self._runner = runner
        self._next_s = 0.0

    def look(self) -> None:
        """Ticks if it is time. Whatever goes wrong is logged, and the next tick comes all the same."""
        try:
            is_wished = self._project.store.remote.take_pull_wish()
            if is_wished or time.monotonic() >= self._next_s:
                self._runner.tick()
                self._next_s = time.monotonic() + self._project.settings.schedule.tick_s
        except Exception:  # the scheduler must outlive any single failure, a locked database included
            log.exception("tick failed; the next one tries again")


def new_round(project: Project, client: LabelStudioClient) -> None:
    """Starts a round if none is under way and the stop rule is content; says why not otherwise."""
    try:
        reasons = stop_line(project)
        if reasons:
            log.warning("no new round by itself: %s; `mad new-round` starts one all the same", reasons)
            return
        start_round(project, client)
    except MadError as error:
        log.warning("no new round: %s", error)
