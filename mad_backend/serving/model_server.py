"""Answers frames from a listening Unix socket with one model."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from mad_backend.core.records import Frame
from mad_backend.models.base import SegmentationModel
from mad_backend.serving.batching import Batches
from mad_backend.serving.forward import forward
from mad_backend.serving.traffic import Peer, Traffic


def _unseen(frames: int, seconds: float) -> None:
    """For servers that nobody watches."""


class ModelServer:
    """`run` in the thread that owns the model; everything else may be called from any thread.

    Takes `queue` connections at once, and runs the model on frames of all of them, `batch_size` at most in one pass.
    `on_batch` is told of each: (frames, seconds). Whoever has bound `listener` unlinks its path.
    """

    def __init__(
        self,
        model: SegmentationModel,
        listener: socket.socket,
        *,
        queue: int,
        batch_size: int,
        on_batch: Callable[[int, float], None] = _unseen,
    ) -> None:
        self._model = model
        self._on_batch = on_batch
        self._frames: Batches[Peer, Frame] = Batches(batch_size)
        self._traffic = Traffic(
            listener, self._frames, max_side=model.grid.size, queue=queue, batch_size=batch_size
        )

    def run(self) -> None:
        """Serves until `drain` was called and the last connection is closed, or its patience has ended; only once.

        Raises ModelLostError when the model cannot answer any more.
        """
        with closing(self._traffic), ThreadPoolExecutor(1, thread_name_prefix="traffic") as threads:
            traffic = threads.submit(self._traffic.run)
            try:
                while batch := self._frames.take():
                    self._predict(batch)
            finally:
                self._traffic.stop()
            traffic.result()

    def drain(self, patience_s: float = 120.0) -> None:
        """Refuses new connections from now on, and serves open ones to their end; a signal handler may call it."""
        self._traffic.drain(patience_s)

    def waiting(self) -> int:
        """Frames that are here and have no answer yet."""
        return self._traffic.unanswered

    def connections(self) -> int:
        """Requests that are being served."""
        return self._traffic.connections

    def _predict(self, batch: list[tuple[Peer, Frame]]) -> None:
        begun = time.perf_counter()
        answers = forward(self._model, [frame for _, frame in batch])
        seconds = time.perf_counter() - begun
        peers = (peer for peer, _ in batch)
        self._traffic.answer(list(zip(peers, answers, strict=True)), seconds)
        self._on_batch(len(batch), seconds)
