"""Looks which version is promoted, in a thread of its own: a database may take its time, or be away."""

import logging
from dataclasses import dataclass
from threading import Event, Thread

from mad_backend.core.records import ModelVersion
from mad_backend.errors import MadError
from mad_backend.settings import Settings
from mad_backend.store.store import Store
from mad_backend.targets import target_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """The promoted version; `stamp` changes when its checkpoint is replaced: (modified in ns, bytes), zeros if none."""

    version: ModelVersion
    stamp: tuple[int, int]


class PromotionWatch:
    """`wanted` is what was promoted at the last look that succeeded, None before there is anything.

    `is_away`: the last look failed.
    """

    def __init__(self, store: Store, settings: Settings, pause_s: float = 1.0) -> None:
        self.wanted: Wanted | None = None
        self._store = store
        self._settings = settings
        self._pause_s = pause_s
        self._stopping = Event()
        self.is_away = False
        self._thread = Thread(target=self._look_on, name="promotions", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits a moment for a look that is in progress."""
        self._stopping.set()
        self._thread.join(2)

    def _look_on(self) -> None:
        while True:
            self._look()
            if self._stopping.wait(self._pause_s):
                return

    def _look(self) -> None:
        try:
            promoted = self._store.versions.promoted()
        except MadError as error:
            if not self.is_away:
                log.warning("what is served stays, since nobody can tell what is promoted: %s", error)
            self.is_away = True
            return
        if self.is_away:
            log.info("the database is back")
        self.is_away = False
        self.wanted = Wanted(promoted, self._stamp(promoted)) if promoted else None

    def _stamp(self, version: ModelVersion) -> tuple[int, int]:
        path = target_settings(version, self._settings).path
        try:
            status = path.stat() if path else None
        except OSError:
            status = None
        return (status.st_mtime_ns, status.st_size) if status else (0, 0)
