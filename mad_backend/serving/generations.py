"""Which model process answers now: announced by the supervisor in a file, read by every web worker."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from mad_backend.serving.targets import TargetState

_FILE: Final = "generation.json"


@dataclass(frozen=True)
class Generation:
    """One process of one version; `number` counts processes.

    `key`: of the version's stored label maps, "" while it is unknown. `socket`: where the process takes connections,
    None unless it is ready. `error` as in `TargetStatus`.
    """

    number: int
    version: str
    key: str
    socket: Path | None
    state: TargetState
    error: str = ""


class Announcer:
    """Writes the announcement in `folder`, which nobody else may enter."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._stamp_ns = 0

    def announce(self, generation: Generation) -> None:
        """Readers have the announcement before or this one, never half of it."""
        fresh = self._path.with_suffix(".new")
        place = str(generation.socket) if generation.socket else None
        fresh.write_text(json.dumps({**vars(generation), "socket": place}), encoding="utf-8")
        # The clock of a file system may stand still between two announcements, and readers go by the time.
        self._stamp_ns = max(time.time_ns(), self._stamp_ns + 1)
        os.utime(fresh, ns=(self._stamp_ns, self._stamp_ns))
        fresh.replace(self._path)


class Announcements:
    """Reads the announcement in `folder`; may be used by many threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._generation: Generation | None = None

    def current(self) -> Generation | None:
        """None before the first one; microseconds while nothing is new."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        stamp = (status.st_ino, status.st_mtime_ns)
        with self._lock:
            if stamp != self._stamp:
                # What is read may be newer than `status`, and is then read once more.
                self._generation = _parsed(self._path.read_text(encoding="utf-8"))
                self._stamp = stamp
            return self._generation


def _parsed(text: str) -> Generation:
    fields = json.loads(text)
    place = fields.pop("socket")
    state = TargetState(fields.pop("state"))
    return Generation(**fields, state=state, socket=Path(place) if place else None)
