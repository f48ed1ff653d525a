"""Processes that `mad serve` starts, each for one job; they say how it goes and end with their parent."""

import importlib
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeAlias

from mad_backend.errors import MadError

log = logging.getLogger(__name__)

GRACE_S: Final = 9.0
"""How long requests that run may go on once the server is to end."""
_PROGRAM: Final = (
    "import sys; from multiprocessing.connection import Connection; pipe = Connection(int(sys.argv[1])); "
    "sys.path[:] = pipe.recv(); from mad_backend.serving.children import main; main(pipe)"
)
"""The path comes late, and not as PYTHONPATH: what lies beside a script must not stand in for Python's own modules."""
_NO_MEMORY: Final = ("out of memory", "allocate memory")

Tell: TypeAlias = Callable[[object], None]
"""Sends a message to the parent."""


@dataclass(frozen=True)
class Ready:
    """The child is up."""


@dataclass(frozen=True)
class Failed:
    """The child ends, and why; `lacks_memory`: with more of it, all would have been well.

    `traceback`: for the log, from its own line on, "" for errors that say everything.
    """

    reason: str
    lacks_memory: bool = False
    traceback: str = ""


@dataclass(frozen=True)
class _Start:
    """`formatter` and `levels` of the parent's loggers: a child writes its lines like the parent."""

    work: str
    job: object
    folder: Path
    formatter: logging.Formatter | None
    levels: Mapping[str, int]


class Child:
    """A process that runs `work`, "module:function" of (job, tell), where `job` can be pickled.

    `folder` is removed by a child whose parent ended without doing so; `sockets` are open in the child under the
    numbers they have here. A process of its own group: Ctrl-C reaches the parent alone, which ends its children.
    """

    def __init__(
        self,
        work: str,
        job: object,
        folder: Path,
        environment: Mapping[str, str],
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        # Not multiprocessing's processes, which import the parent's main module again: a second for the command line.
        self._pipe, theirs = multiprocessing.Pipe()
        passed = [theirs.fileno(), *(s.fileno() for s in sockets)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), work],
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                process_group=0,
                env={**os.environ, **environment},
            )
        with suppress(BrokenPipeError):  # it has ended, which `status` says
            self._pipe.send(sys.path)
            self._pipe.send(_Start(work, job, folder, _formatter(), _levels()))

    @property
    def pid(self) -> int:
        return self._process.pid

    def messages(self) -> Iterator[object]:
        """What the child has told since the last call."""
        with suppress(EOFError, OSError):
            while self._pipe.poll():
                yield self._pipe.recv()

    def status(self) -> int | None:
        """None while it runs; its exit status, or -9 for a child that was killed with signal 9."""
        return self._process.poll()

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Ends it at once if it still runs."""
        self.kill()
        self._process.wait()
        self._pipe.close()


def main(pipe: Connection) -> None:
    """The child, with the pipe to its parent."""
    os.set_inheritable(pipe.fileno(), False)
    try:
        start = pipe.recv()
    except EOFError:
        os._exit(1)
    assert isinstance(start, _Start)
    handler = logging.StreamHandler()
    handler.setFormatter(start.formatter)
    logging.basicConfig(handlers=[handler])
    for name, level in start.levels.items():
        logging.getLogger(name).setLevel(level)
    Thread(target=_end_with_parent, args=(pipe, start.folder), daemon=True).start()
    module, _, function = start.work.partition(":")

    def tell(message: object) -> None:
        with suppress(BrokenPipeError):  # the thread above ends this process
            pipe.send(message)

    try:
        getattr(importlib.import_module(module), function)(start.job, tell)
    except MadError as error:
        tell(Failed(str(error), _lacks_memory(error)))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent must know
        reason = f"{type(error).__name__}: {str(error)[:400]}"
        tell(Failed(reason, _lacks_memory(error), "\n" + traceback.format_exc()))
        sys.exit(1)


def stop_on(number: signal.Signals, stop: Callable[[], None]) -> None:
    """In a child or its parent: `stop` is called, between two lines of the main thread, when the signal comes."""
    signal.signal(number, lambda _number, _frame: stop())


def _end_with_parent(pipe: Connection, folder: Path) -> None:
    """Ends this process, whatever its other threads do, when the parent has ended, however that was."""
    with suppress(EOFError, OSError):
        pipe.recv()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether a lack of memory, of the machine or of the GPU, is behind `error`; torch's is known by its name."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if any(words in str(error).lower() for words in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _formatter() -> logging.Formatter | None:
    """The root's; one of somebody's own class stays here, since it may hold whatever it likes."""
    found = (handler.formatter for handler in logging.root.handlers)
    return next((formatter for formatter in found if type(formatter) is logging.Formatter), None)


def _levels() -> dict[str, int]:
    """Of all loggers that have a level of their own; the root's name is ""."""
    loggers: dict[str, Any] = {"": logging.root, **logging.root.manager.loggerDict}
    return {n: x.level for n, x in loggers.items() if isinstance(x, logging.Logger) and x.level}
