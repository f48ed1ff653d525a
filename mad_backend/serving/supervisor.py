"""The process that `mad serve` is: it keeps web workers and the model up, and ends them all."""

import logging
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mad_backend.errors import MadError
from mad_backend.serving.children import GRACE_S, Child, Failed, Ready
from mad_backend.serving.model_keeper import ModelKeeper, Patience
from mad_backend.serving.promotion_watch import PromotionWatch
from mad_backend.settings import Settings
from mad_backend.store.store import Store

log = logging.getLogger(__name__)

_MODEL_GRACE_S: Final = 2.0
_TICK_S: Final = 0.1
_LONGEST_FOLDER: Final = 90
"""Addresses of Unix sockets have 107 bytes at most."""


@dataclass(frozen=True)
class WebWork:
    """What web workers run; `job` makes what one is given from the folder of announcements."""

    work: str
    job: Callable[[Path], object]


class _Worker:
    """One web worker after the other, in one place."""

    def __init__(self, start: Callable[[], Child], patience: Patience) -> None:
        self._start = start
        self._patience = patience
        self._since = time.monotonic()
        self._not_before = 0.0
        self._troubles = 0
        self._why = ""
        self.child: Child | None = start()
        self.is_up = False

    def step(self, gone: Callable[[int], None]) -> None:
        """Raises MadError when the first one does not come up."""
        now = time.monotonic()
        if self.child is None:
            if now >= self._not_before:
                self._again(now)
            return
        status = self.child.status()
        for message in self.child.messages():
            if isinstance(message, Failed):
                self._why = message.reason + message.traceback
            self.is_up |= isinstance(message, Ready)
        if status is None:
            return
        why = self._why or f"it ended with status {status}"
        gone(self.child.pid)
        self.child.close()
        self.child = None
        if not self.is_up:
            raise MadError(f"no web worker comes up: {why}")
        self._troubles = 1 if now - self._since > self._patience.settled_s else self._troubles + 1
        self._not_before = now + self._patience.pause_s(self._troubles - 1)
        log.error("a web worker is started again: %s", why)

    def _again(self, now: float) -> None:
        try:
            self.child, self._since, self._why = self._start(), now, ""
        except OSError:  # no memory, or no process more
            self._troubles += 1
            self._not_before = now + self._patience.pause_s(self._troubles)
            log.exception("no web worker can be started")


class Supervisor:
    """Of web workers that run `web` on `listener`, and of the model of the promoted version.

    Raises MadError when the first workers do not come up, or the database cannot be opened.
    """

    def __init__(
        self, settings: Settings, listener: socket.socket, web: WebWork, patience: Patience | None = None
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._web = web
        self._patience = patience or Patience()
        self._stops: list[int] = []
        self._folder = Path(tempfile.mkdtemp(prefix="mad-"))
        self._metrics = self._folder / "metrics"

    def run(self, told: str) -> None:
        """Until SIGTERM or SIGINT (Ctrl-C); `told` is logged once all workers are up."""
        try:
            self._check_folder()
            self._metrics.mkdir()
            with _handling(self._stops):
                self._supervise(told)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _supervise(self, told: str) -> None:
        workers: list[_Worker] = []
        keeper = ModelKeeper(self._settings, self._folder, self._start, self._gone, self._patience)
        try:
            workers += [
                _Worker(self._start_worker, self._patience) for _ in range(self._settings.serve.workers)
            ]
            with (
                closing(Store(self._settings.database_url)) as store,
                closing(PromotionWatch(store, self._settings)) as watch,
            ):
                is_told = False
                while not self._stops:
                    for worker in workers:
                        worker.step(self._gone)
                    keeper.step(watch.wanted)
                    if not is_told and all(worker.is_up for worker in workers):
                        log.info(told)
                        is_told = True
                    time.sleep(_TICK_S)
                log.info("stopping; requests that run have %.0f s", GRACE_S)
                # Whoever comes now is told at once that nobody listens.
                self._listener.close()
                self._end([worker.child for worker in workers if worker.child], GRACE_S + 1)
                self._end(list(keeper.children()), _MODEL_GRACE_S)
        finally:
            for child in (*(w.child for w in workers if w.child), *keeper.children()):
                child.close()

    def _end(self, children: Sequence[Child], grace_s: float) -> None:
        """A second signal ends the grace."""
        for child in children:
            child.terminate()
        until = time.monotonic() + grace_s
        while any(child.status() is None for child in children):
            if time.monotonic() > until or len(self._stops) > 1:
                break
            time.sleep(_TICK_S)
        for child in children:
            child.close()

    def _start_worker(self) -> Child:
        return self._start(self._web.work, self._web.job(self._folder), [self._listener])

    def _start(self, work: str, job: object, sockets: Sequence[socket.socket] = ()) -> Child:
        return Child(work, job, self._folder, self._environment(), sockets)

    def _environment(self) -> Mapping[str, str]:
        return {"PROMETHEUS_MULTIPROC_DIR": str(self._metrics)}

    def _gone(self, pid: int) -> None:
        """Takes what the process measured last (not what it counted) out of /metrics."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, str(self._metrics))  # type: ignore[no-untyped-call]

    def _check_folder(self) -> None:
        if len(str(self._folder)) > _LONGEST_FOLDER:
            raise MadError(
                f"the folder for temporary files, {self._folder.parent}, has too long a name for sockets; set TMPDIR "
                "to another one"
            )


@contextmanager
def _handling(stops: list[int]) -> Iterator[None]:
    """Signals that end the server are noted in `stops` and leave whatever is being done alone."""
    before = {n: signal.signal(n, lambda n, _: stops.append(n)) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
