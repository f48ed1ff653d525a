"""The engine of one process: chunks overlap in threads, since reading, predicting and compressing let the GIL go."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mad_backend.core.grid import Grid
from mad_backend.engines.base import IN_FLIGHT, ChunkResult, ChunkTask, Engine, ReadBytes, in_order
from mad_backend.engines.worker import ChunkWorker
from mad_backend.models.base import SegmentationModel


class LocalEngine(Engine):
    """Models that are loaded already, on one device or on the devices that their settings name; closed with it."""

    def __init__(
        self,
        models: Sequence[SegmentationModel],
        grid: Grid,
        read: ReadBytes,
        decode_threads: int | None = None,
    ) -> None:
        self._models = tuple(models)
        self._worker = ChunkWorker(models, grid, read, decode_threads or default_decode_threads())
        self._threads = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="chunk")

    def run(self, tasks: Iterable[ChunkTask]) -> Iterator[ChunkResult]:
        def submit(task: ChunkTask) -> "Future[ChunkResult]":
            return self._threads.submit(self._worker.run, task)

        yield from in_order(tasks, submit, lambda future: future.result(), IN_FLIGHT)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._worker.close()
        for model in self._models:
            model.close()


def default_decode_threads(processes: int = 1) -> int:
    """As many as there are cores for each process, within reason: more than eight outrun every model."""
    return max(1, min(8, (os.cpu_count() or 1) // processes))
