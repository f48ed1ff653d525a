"""The target whose model is in a process of its own: what is announced is held, asked, and asked again if it died."""

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import AbandonedError, MadError, ModelError, StoreError
from mad_backend.serving.generations import Announcements, Generation
from mad_backend.serving.model_client import ModelConnection, ModelGoneError
from mad_backend.serving.targets import (
    HeldTarget,
    IsAbandoned,
    TargetState,
    TargetStatus,
    VersionGoneError,
    never,
)
from mad_backend.store.store import Store

_PATIENCE_S: Final = 90.0
"""How long a request waits for a model that is being loaded; Label Studio gives up after 100 s."""
_LOOK_S: Final = 0.02

_T = TypeVar("_T")


class RemoteTargets:
    """`Targets` of web workers; `folder` is where the supervisor announces what is served."""

    def __init__(self, store: Store, folder: Path, patience_s: float = _PATIENCE_S) -> None:
        self._store = store
        self._announced = Announcements(folder)
        self._turn = folder / "second-try"
        self._patience_s = patience_s

    def served_version(self) -> str | None:
        return self.status().version

    def status(self) -> TargetStatus:
        found = self._announced.current()
        if found:
            return TargetStatus(found.version, found.state, found.error, found.number)
        promoted = self._store.versions.promoted()
        if promoted is None:
            return TargetStatus(None, TargetState.UNPROMOTED)
        return TargetStatus(promoted.version, TargetState.LOADING)

    @contextmanager
    def hold(self) -> Iterator[HeldTarget]:
        target = RemoteTarget(self._keyed(), self._announced, self._turn, self._patience_s)
        try:
            yield target
        finally:
            target.close()

    def close(self) -> None:
        """Nothing is loaded here."""

    def _keyed(self) -> Generation:
        """What is announced, once the key of its label maps is known."""
        if self._announced.current() is None and self._store.versions.promoted() is None:
            raise StoreError("no target version is promoted yet; start a round with `mad new-round`")

        def known() -> Generation | None:
            found = self._announced.current()
            if found and not found.key and found.state is TargetState.FAILED:
                raise ModelError(found.error)
            return found if found and found.key else None

        return _once(known, self._patience_s, never, "the target")


class RemoteTarget:
    """One version, held for one request and used by one thread.

    It connects at once, so that the process stays for as long as the request does, whatever is promoted meanwhile.
    """

    def __init__(
        self, generation: Generation, announced: Announcements, turn: Path, patience_s: float
    ) -> None:
        self.version = generation.version
        self.key = generation.key
        self._announced = announced
        self._turn = turn
        self._patience_s = patience_s
        self._connection = _connected(generation)

    def predict(
        self, frames: Sequence[Frame], is_abandoned: IsAbandoned = never
    ) -> list[LabelMap | MadError]:
        try:
            return self._ask(frames, is_abandoned)
        except ModelGoneError:
            self.close()
        # One of the frames may have killed the process. Each is asked alone, and by one request at a time, so that
        # the one which kills it again takes no other with it.
        with _alone(self._turn, is_abandoned):
            return [self._ask_alone(frame, is_abandoned) for frame in frames]

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def _ask(self, frames: Sequence[Frame], is_abandoned: IsAbandoned) -> list[LabelMap | MadError]:
        if self._connection is None:
            what = f"target {self.version}"
            self._connection = _once(self._reached, self._patience_s, is_abandoned, what)
        return self._connection.predict(frames, is_abandoned)

    def _ask_alone(self, frame: Frame, is_abandoned: IsAbandoned) -> LabelMap | MadError:
        try:
            return self._ask([frame], is_abandoned)[0]
        except ModelGoneError:
            self.close()
            return ModelError(f'target {self.version} ended twice while it had image "{frame.image_id}"')

    def _reached(self) -> ModelConnection | None:
        """A connection to whichever process has this version now, None while there is none."""
        found = self._announced.current()
        if found is None or found.version != self.version or found.key != self.key:
            raise VersionGoneError(
                f"target {self.version} was replaced while a request waited for it; ask again"
            )
        if found.state is TargetState.FAILED:
            raise ModelError(found.error)
        return _connected(found)


def _connected(generation: Generation) -> ModelConnection | None:
    """None if the process is not up: requests for images with stored label maps do without."""
    if generation.socket is None:
        return None
    try:
        return ModelConnection(generation.socket)
    except ModelGoneError:
        return None


def _once(look: Callable[[], _T | None], patience_s: float, is_abandoned: IsAbandoned, what: str) -> _T:
    """What `look` finds, as soon as it does; raises ModelError after `patience_s`, AbandonedError."""
    until = time.monotonic() + patience_s
    while (found := look()) is None:
        if is_abandoned():
            raise AbandonedError("nobody waits for the answer any more")
        if time.monotonic() > until:
            raise ModelError(f"{what} was not loaded in {patience_s:.0f} s; the log of `mad serve` says why")
        time.sleep(_LOOK_S)
    return found


@contextmanager
def _alone(path: Path, is_abandoned: IsAbandoned) -> Iterator[None]:
    """One at a time of all threads of all workers."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if is_abandoned():
                    raise AbandonedError("nobody waits for the answer any more") from None
                time.sleep(_LOOK_S)
            else:
                break
        yield  # closing the file ends the lock
