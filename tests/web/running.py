"""The application on a real port, and a target that answers when it is let."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Semaphore, Thread
from typing import Any

from waitress import wasyncore

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import AbandonedError, MadError
from mad_backend.serving.targets import HeldTarget, IsAbandoned, Targets, TargetStatus, never
from mad_backend.settings import ServeSettings
from mad_backend.web.web_server import web_server

PATIENCE_S = 20.0


@contextmanager
def running(app: Any, serve: ServeSettings) -> Iterator[int]:
    """The port of 127.0.0.1 where waitress gives `app`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = web_server(app, serve, listener)
        thread = Thread(target=server.run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
            thread.join(PATIENCE_S)
            server.task_dispatcher.shutdown()
    assert not thread.is_alive()


@dataclass
class SlowTargets:
    """`targets` whose model begins when `go` is set, unless whoever asked has gone by then."""

    targets: Targets
    go: Event = field(default_factory=Event)
    begun: Semaphore = field(default_factory=lambda: Semaphore(0))

    def served_version(self) -> str | None:
        return self.targets.served_version()

    def status(self) -> TargetStatus:
        return self.targets.status()

    @contextmanager
    def hold(self) -> Iterator["SlowTarget"]:
        with self.targets.hold() as held:
            yield SlowTarget(held, self)

    def close(self) -> None:
        self.targets.close()


@dataclass(frozen=True)
class SlowTarget:
    held: HeldTarget
    of: SlowTargets

    @property
    def version(self) -> str:
        return self.held.version

    @property
    def key(self) -> str:
        return self.held.key

    def predict(
        self, frames: Sequence[Frame], is_abandoned: IsAbandoned = never
    ) -> list[LabelMap | MadError]:
        self.of.begun.release()
        while not self.of.go.wait(0.01):
            if is_abandoned():
                raise AbandonedError("nobody waits for the answer any more")
        return self.held.predict(frames, is_abandoned)
