"""The engine of several devices on one machine: one process each, which never share a Python lock."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

from mad_backend.engines.base import (
    IN_FLIGHT,
    ChunkResult,
    ChunkTask,
    Engine,
    ModelRecipe,
    ReadBytes,
    in_order,
)
from mad_backend.engines.local import LocalEngine, default_decode_threads
from mad_backend.errors import MadError, ScanError


class DeviceEngine(Engine):
    """Chunks go to the devices in turn; a device may be named twice.

    Raises ScanError when a process dies, and whatever a model raised in one. `read` must be importable by its name.
    """

    def __init__(
        self,
        recipes: Sequence[ModelRecipe],
        devices: Sequence[str],
        read: ReadBytes,
        decode_threads: int | None = None,
    ) -> None:
        # A forked CUDA context is unusable, so processes start afresh.
        context = multiprocessing.get_context("spawn")
        threads = decode_threads or default_decode_threads(len(devices))
        self._devices = [_Device(context, tuple(recipes), name, read, threads) for name in devices]

    @property
    def replicas(self) -> int:
        return len(self._devices)

    def run(self, tasks: Iterable[ChunkTask]) -> Iterator[ChunkResult]:
        def numbered() -> Iterator[tuple[int, ChunkTask]]:
            yield from enumerate(tasks)
            for device in self._devices:
                device.give(None)

        def submit(one: tuple[int, ChunkTask]) -> "_Device":
            device = self._devices[one[0] % len(self._devices)]
            device.give(one[1])
            return device

        # One chunk more than a process works on, so that none of them ever waits for this one.
        ahead = (IN_FLIGHT + 1) * len(self._devices)
        yield from in_order(numbered(), submit, _Device.next_result, ahead)

    def close(self) -> None:
        for device in self._devices:
            device.stop()


class _Device:
    """A process, a pipe of tasks to it and a pipe of results from it.

    Pipes and no queues: of a process that is killed while it writes, a queue's reader never hears again.
    """

    def __init__(
        self,
        context: Any,
        recipes: tuple[ModelRecipe, ...],
        name: str,
        read: ReadBytes,
        decode_threads: int,
    ) -> None:
        self.name = name
        tasks, self._tasks = context.Pipe(duplex=False)
        self._results, results = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_serve,
            args=(recipes, name, read, decode_threads, tasks, results),
            daemon=True,
            name=f"scan on {name}",
        )
        self.process.start()
        # With its own ends closed here, a pipe ends when the process does.
        tasks.close()
        results.close()
        self._found: SimpleQueue[ChunkResult | Exception] = SimpleQueue()
        self._collector = Thread(target=self._collect, name=f"results of {name}", daemon=True)
        self._collector.start()

    def give(self, task: ChunkTask | None) -> None:
        """None: no more tasks of this run."""
        with suppress(BrokenPipeError):  # how the process ended is in its results
            self._tasks.send(task)

    def next_result(self) -> ChunkResult:
        found = self._found.get()
        if isinstance(found, Exception):
            self._found.put(found)  # for whoever asks again
            raise found
        return found

    def stop(self) -> None:
        self.process.kill()
        self._collector.join()
        self.process.join()
        self._tasks.close()
        self._results.close()

    def _collect(self) -> None:
        """Takes results as they come, so that the process never waits for a pipe to have room."""
        while True:
            try:
                self._found.put(self._results.recv())
            except (EOFError, OSError):
                self._found.put(self._ended())
                return
            except Exception as error:  # noqa: BLE001 - an error of somebody's model that pickle cannot bring back
                self._found.put(ScanError(f"the process on {self.name} sent what cannot be read: {error!r}"))
                return

    def _ended(self) -> ScanError:
        self.process.join()
        return ScanError(
            f"the process on {self.name} ended with status {self.process.exitcode} (-9: killed, most often for lack of "
            "memory: lower batch_size or scan.chunk); run the scan again, nothing finished is lost"
        )


def _serve(
    recipes: Sequence[ModelRecipe],
    device: str,
    read: ReadBytes,
    decode_threads: int,
    tasks: Any,
    results: Any,
) -> None:
    """The process of one device; it ends with its parent, however that ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        models = [recipe.load(device) for recipe in recipes]
        with LocalEngine(models, recipes[0].grid, read, decode_threads) as engine:
            while True:
                for result in engine.run(_given(tasks)):
                    _send(results, result)
    except MadError as error:
        _send(results, error)
    except Exception:  # noqa: BLE001 - any fault of a model must reach the parent, which cannot see this terminal
        _send(results, ScanError(f"the process on {device} failed:\n{traceback.format_exc()}"))


def _given(tasks: Any) -> Iterator[ChunkTask]:
    try:
        yield from iter(tasks.recv, None)
    except EOFError:
        os._exit(1)


def _send(results: Any, found: ChunkResult | MadError) -> None:
    try:
        results.send(found)
    except BrokenPipeError:
        os._exit(1)


def _end_with_parent() -> None:
    """Ends this process, whatever its other threads do, when nobody is left who waits for its results."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
