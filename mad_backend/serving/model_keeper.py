"""Keeps the process of the promoted version up, and swaps it for another's without a gap."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mad_backend.core.records import ModelVersion
from mad_backend.serving.children import Child, Failed, Ready
from mad_backend.serving.generations import Announcer, Generation
from mad_backend.serving.model_process import WORK, KeyKnown, ModelJob
from mad_backend.serving.promotion_watch import Wanted
from mad_backend.serving.targets import TargetState
from mad_backend.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """Seconds. `pauses_s`: before the next try, after as many tries in a row that ended badly.

    `settled_s`: a process that lived so long did not die of how it was started. `linger_s`: a request that has read the
    old announcement is connected by then. `leave_s`: how long a replaced process may serve those who hold it; it gives
    up by itself a little earlier.
    """

    pauses_s: Sequence[float] = (0, 1, 2, 4, 8, 16, 32, 60)
    settled_s: float = 60
    linger_s: float = 1
    leave_s: float = 125

    def pause_s(self, troubles: int) -> float:
        return self.pauses_s[min(troubles, len(self.pauses_s) - 1)]


@dataclass
class _Model:
    """A process of `version`; `since` when it was started, got ready or was told to leave (monotonic seconds)."""

    number: int
    version: ModelVersion
    child: Child
    socket: Path
    since: float
    key: str = ""
    is_told: bool = False


class ModelKeeper:
    """`step` is called often, by one thread; `start` makes the child of (work, job), `gone` is told of one that ended.

    At any time one process serves, or none; another may be coming, and those it replaced are leaving. While the wanted
    version cannot be loaded, the one before it stands in; it gives way once to one that finds no memory beside it.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        start: Callable[[str, object], Child],
        gone: Callable[[int], None],
        patience: Patience,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._start = start
        self._gone = gone
        self._patience = patience
        self._announcer = Announcer(folder)
        self._announced: Generation | None = None
        self._number = 0
        self._serving: _Model | None = None
        self._coming: _Model | None = None
        self._leaving: list[_Model] = []
        self._wanted: Wanted | None = None
        self._failures = 0
        self._deaths = 0
        self._not_before = 0.0
        self._reason = ""
        self._needs_room = False
        self._gave_way: ModelVersion | None = None
        self._stand_in: ModelVersion | None = None

    def children(self) -> Iterator[Child]:
        for model in (self._serving, self._coming, *self._leaving):
            if model:
                yield model.child

    def step(self, wanted: Wanted | None) -> None:
        """Takes in what happened, and does what is to be done about it now."""
        now = time.monotonic()
        self._see_leaving(now)
        self._see_serving(now)
        self._see_coming(now)
        if wanted and wanted != self._wanted:
            self._want(wanted)
        if self._wanted and self._is_due(now):
            version, self._stand_in = self._stand_in or self._wanted.version, None
            self._load(version, now)

    def _want(self, wanted: Wanted) -> None:
        """Another version, or another file of one that is not served yet: no pause is due any more."""
        self._wanted = wanted
        self._failures, self._deaths, self._not_before = 0, 0, 0.0
        self._reason, self._needs_room = "", False
        coming, serving = self._coming, self._serving
        self._gave_way = self._stand_in = None
        if coming and not self._is_wanted(coming):
            log.info("%s is no longer wanted before it was loaded", coming.version.version)
            self._coming = None
            coming.child.kill()
            self._leaving.append(coming)
        if serving:
            self._announce(TargetState.READY, serving)
        elif self._coming is None:
            self._announce_version(TargetState.LOADING, wanted.version)

    def _is_due(self, now: float) -> bool:
        if self._coming or now < self._not_before or (self._serving and self._is_wanted(self._serving)):
            return False
        return not self._needs_room or not (self._serving or self._leaving)

    def _is_wanted(self, model: _Model) -> bool:
        return self._wanted is not None and model.version.version == self._wanted.version.version

    def _load(self, version: ModelVersion, now: float) -> None:
        self._number += 1
        place = self._folder / f"{self._number}.sock"
        log.log(logging.DEBUG if self._reason else logging.INFO, "loading %s", version.version)
        try:
            child = self._start(WORK, ModelJob(version, self._settings, place))
        except OSError:  # no memory, or no process more
            self._failures += 1
            self._not_before = now + self._patience.pause_s(self._failures)
            log.exception("no process for %s can be started", version.version)
            return
        self._coming = _Model(self._number, version, child, place, now)

    def _see_coming(self, now: float) -> None:
        coming = self._coming
        if coming is None:
            return
        ended = coming.child.status()
        for message in coming.child.messages():
            match message:
                case KeyKnown(key):
                    coming.key = key
                    if self._serving is None and not self._reason:
                        self._announce(TargetState.LOADING, coming)
                case Ready():
                    self._swap(coming, now)
                    return
                case Failed():
                    self._end(coming)
                    self._fail(coming, message, now)
                    return
        if ended is not None:
            self._end(coming)
            why = f"its process ended with status {ended} (-9: killed) while it was loaded"
            self._fail(coming, Failed(why, lacks_memory=ended == -signal.SIGKILL), now)

    def _swap(self, coming: _Model, now: float) -> None:
        serving, self._serving, self._coming = self._serving, coming, None
        coming.since = now
        if self._is_wanted(coming):
            self._reason, self._needs_room = "", False
        else:
            self._not_before = now + self._patience.pause_s(self._failures)
        if serving:
            self._leave(serving, now)
        self._announce(TargetState.READY, coming)
        log.info("now serving %s, round %d", coming.version.version, coming.version.round_number)

    def _fail(self, coming: _Model, failed: Failed, now: float) -> None:
        self._coming = None
        self._failures += 1
        self._not_before = now + self._patience.pause_s(self._failures)
        told = f"{coming.version.version} cannot be served: {failed.reason}"
        self._needs_room = failed.lacks_memory and self._gave_way is None
        if self._needs_room and self._serving:
            log.warning("%s; it is tried again in the place of %s", told, self._serving.version.version)
            self._not_before = now
            serving, self._serving = self._serving, None
            self._gave_way = serving.version
            self._leave(serving, now)
            self._announce(TargetState.LOADING, coming)
            return
        if self._serving is None and self._is_wanted(coming):
            self._stand_in = self._gave_way
        stays = self._serving.version if self._serving else self._stand_in
        if told != self._reason:
            whose = f"{stays.version} is served, " if stays else ""
            log.error("%s; %sand it is tried again from time to time%s", told, whose, failed.traceback)
        self._reason = told
        if self._serving:
            self._announce(TargetState.READY, self._serving)
        elif stays:
            self._not_before = now
            self._announce_version(TargetState.LOADING, stays)
        else:
            self._announce(TargetState.FAILED, coming)

    def _see_serving(self, now: float) -> None:
        serving = self._serving
        if serving is None:
            return
        ended = serving.child.status()
        if ended is None:
            return
        why = f"ended with status {ended} (-9: killed)"
        for message in serving.child.messages():
            if isinstance(message, Failed):
                why = f"ended: {message.reason}{message.traceback}"
        self._end(serving)
        self._serving = None
        self._deaths = 1 if now - serving.since > self._patience.settled_s else self._deaths + 1
        wait_s = self._patience.pause_s(self._deaths - 1)
        self._not_before = now + wait_s
        name = serving.version.version
        if self._reason and not self._is_wanted(serving):
            self._stand_in = serving.version
        log.error("the process of %s is started again in %.0f s, for it %s", name, wait_s, why)
        if self._deaths > 2:
            self._reason = f"the process of {name} does not stay up; it {why.partition(chr(10))[0]}"
            self._announce(TargetState.FAILED, serving)
        else:
            next_one = serving if self._stand_in else self._coming or serving
            self._announce(TargetState.LOADING, next_one)

    def _leave(self, model: _Model, now: float) -> None:
        model.since = now
        self._leaving.append(model)

    def _see_leaving(self, now: float) -> None:
        for model in list(self._leaving):
            if model.child.status() is not None:
                self._leaving.remove(model)
                self._end(model)
                log.info("%s has left", model.version.version)
            elif now - model.since > self._patience.leave_s:
                model.child.kill()
            elif now - model.since > self._patience.linger_s and not model.is_told:
                model.is_told = True
                model.child.terminate()

    def _end(self, model: _Model) -> None:
        model.child.close()
        model.socket.unlink(missing_ok=True)
        self._gone(model.child.pid)

    def _announce(self, state: TargetState, model: _Model) -> None:
        place = model.socket if state is TargetState.READY else None
        self._publish(Generation(model.number, model.version.version, model.key, place, state, self._reason))

    def _announce_version(self, state: TargetState, version: ModelVersion) -> None:
        """Of a version that has no process yet."""
        before = self._announced
        key = before.key if before and before.version == version.version else ""
        self._publish(Generation(self._number, version.version, key, None, state, self._reason))

    def _publish(self, generation: Generation) -> None:
        if generation != self._announced:
            self._announced = generation
            self._announcer.announce(generation)
