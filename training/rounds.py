"""Drives rounds: takes the lease, does the state's step, moves the state on."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from mad_backend.core.rounds import NEXT, Round, RoundState
from mad_backend.errors import LabelStudioError, MadError
from training.people import People
from training.processes import last_line, start_mad, stop
from training.project import Project
from training.steps import PIPELINE, Context

log = logging.getLogger(__name__)

HEAVY = frozenset({RoundState.PREDICTING, RoundState.TRAINING, RoundState.EVALUATING})
"""States whose work runs in a process of its own: running out of memory fails a step, not the service."""


class RoundRunner:
    """Advances rounds. `isolate` False runs heavy steps in this process; `stopping` ends those that run apart."""

    def __init__(self, project: Project, people: People | None, *, isolate: bool = True) -> None:
        self._project = project
        self._people = people
        self._isolate = isolate
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self.stopping = threading.Event()

    def tick(self) -> bool:
        """Takes the oldest round that has work as far as it goes without people; True if it moved."""
        rounds = self._project.store.rounds
        for found in rounds.all():
            if found.state.is_working:
                lease_s = self._project.settings.schedule.lease_s
                if not rounds.claim(found.number, self._owner, _now(), lease_s):
                    return False
                with self._lease(found.number, lease_s):
                    return self._advance(found.number)
        return False

    def step(self, number: int, state: RoundState) -> bool:
        """Does the work of one state; True when it is done, False while people are waited for."""
        context = Context(self._project, self._people, self._report(number))
        return PIPELINE[state](context, self._project.store.rounds.get(number))

    def _advance(self, number: int) -> bool:
        rounds = self._project.store.rounds
        moved = False
        while (found := rounds.get(number)).state.is_working:
            try:
                done = self._work(found)
            except LabelStudioError as error:
                if error.status is None or error.status >= 500:
                    # A server that restarts is not a failed round: the next tick tries again.
                    log.warning("round %d waits for Label Studio: %s", number, error)
                    rounds.report(number, f"waits for Label Studio: {error}")
                    return moved
                self._fail(found, error)
                return True
            except (
                Exception
            ) as error:  # the border: whatever went wrong belongs into the round, not into the scheduler
                if not isinstance(error, MadError):
                    log.exception("round %d, %s", number, found.state)
                self._fail(found, error)
                return True
            if not done:
                return moved
            after = NEXT[found.state]
            if not rounds.advance(number, found.state, after, _now()):
                return True
            log.info("round %d: %s -> %s", number, found.state, after)
            moved = True
        return moved

    def _work(self, found: Round) -> bool:
        if self._isolate and found.state in HEAVY:
            return self._work_apart(found)
        return self.step(found.number, found.state)

    def _work_apart(self, found: Round) -> bool:
        """One step in a process of its own; ended when somebody pauses or cancels the round meanwhile."""
        log_path = self._project.settings.workspace / "logs" / f"round-{found.number:03d}-{found.state}.log"
        config = str(self._project.config)
        child = start_mad(["step", str(found.number), str(found.state), "--config", config], log_path)
        try:
            while child.poll() is None:
                time.sleep(0.5)
                moved = self._project.store.rounds.get(found.number).state is not found.state
                if moved or self.stopping.is_set():
                    return False
        finally:
            stop(child)
        if child.returncode != 0:
            raise MadError(f"{found.state} ended with status {child.returncode}: {last_line(log_path)}")
        return True

    def _fail(self, found: Round, error: Exception) -> None:
        log.error("round %d failed while %s: %s", found.number, found.state, error)
        text = str(error) or type(error).__name__
        self._project.store.rounds.advance(found.number, found.state, RoundState.FAILED, _now(), error=text)

    @contextmanager
    def _lease(self, number: int, lease_s: float) -> Iterator[None]:
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(lease_s / 3):
                self._project.store.rounds.renew(number, self._owner, _now(), lease_s)

        keeper = threading.Thread(target=renew, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            self._project.store.rounds.release(number, self._owner)

    def _report(self, number: int) -> Callable[[str, int, int], None]:
        last = [0.0]

        def report(note: str, done: int, total: int) -> None:
            # Twice a second is enough for a bar, and keeps the database quiet.
            if done >= total or time.monotonic() - last[0] > 0.5:
                last[0] = time.monotonic()
                self._project.store.rounds.report(number, note, done, total)

        return report


def _now() -> datetime:
    return datetime.now(UTC)
