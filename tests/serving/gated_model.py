"""A model whose every step a test decides, the server around it, and what its clients send."""

import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeAlias

import numpy as np

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import MadError
from mad_backend.models.base import SegmentationModel
from mad_backend.serving.model_client import ModelConnection
from mad_backend.serving.model_server import ModelServer

SIDE = 32
OnBatch: TypeAlias = Callable[[int, float], None]


class GatedModel(SegmentationModel):
    """Answers a frame with its red channel once `gate` is open; keeps the image ids of each batch, and all frames.

    "none/..." has no answer, "bad/..." is an error, and a batch of more than `fits` frames is too much for memory.
    """

    def __init__(self, fits: int = 99, side: int = SIDE) -> None:
        self.name = "gated"
        self.grid = Grid(side)
        self.fits = fits
        self.gate = Event()
        self.batches: list[list[str]] = []
        self.seen: list[Frame] = []

    @property
    def asked(self) -> list[str]:
        return [image_id for batch in self.batches for image_id in batch]

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        self.batches.append([frame.image_id for frame in frames])
        self.seen.extend(frames)
        assert self.gate.wait(20)
        if len(frames) > self.fits:
            raise MemoryError(f"{len(frames)} frames")
        for frame in frames:
            if frame.image_id.startswith("bad/"):
                raise ValueError(f"cannot see {frame.image_id}")
            if frame.image_id.startswith("lost/"):
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return [None if f.image_id.startswith("none/") else f.rgb[:, :, 0].copy() for f in frames]

    @classmethod
    def files(cls, settings: Any) -> Sequence[Path]:
        return ()


@dataclass(frozen=True)
class Served:
    """A server in a thread; `errors` is what its `run` has raised."""

    server: ModelServer
    path: Path
    thread: Thread
    errors: list[Exception]

    def until_waiting(self, frames: int) -> None:
        until(lambda: self.server.waiting() == frames)

    def until_connected(self, connections: int) -> None:
        until(lambda: self.server.connections() == connections)


@contextmanager
def serving(
    model: SegmentationModel, *, queue: int = 64, batch_size: int = 4, on_batch: OnBatch = lambda *_: None
) -> Iterator[Served]:
    """A server at a path short enough for a Unix socket; ends it, and checks that it has ended."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            server.run()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    with tempfile.TemporaryDirectory(prefix="m") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "s"
        listener.bind(str(path))
        listener.listen(queue)
        server = ModelServer(model, listener, queue=queue, batch_size=batch_size, on_batch=on_batch)
        thread = Thread(target=run, name="model")
        thread.start()
        try:
            yield Served(server, path, thread, errors)
        finally:
            if isinstance(model, GatedModel):
                model.gate.set()
            server.drain(0)
            thread.join(20)
            assert not thread.is_alive()


def until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)


def frame(image_id: str, value: int = 0, shape: tuple[int, int] = (3, 5)) -> Frame:
    """Whose red channel is `value`, and its position in the corner."""
    rgb = np.full((*shape, 3), value, np.uint8)
    return Frame(image_id, rgb, shape, f"https://example.com/{image_id}.jpg")


def frames_of(name: str, count: int, shape: tuple[int, int] = (3, 5)) -> list[Frame]:
    return [frame(f"{name}/{n}", n % 251, shape) for n in range(count)]


def serve_alone(path: str) -> None:
    """A process of its own, which says "begun" when its model has a batch, and ends at SIGTERM."""
    import signal

    class Telling(GatedModel):
        def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
            print("begun", flush=True)  # noqa: T201
            return super().predict(frames)

    model = Telling()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4)
        server = ModelServer(model, listener, queue=4, batch_size=2)
        signal.signal(signal.SIGTERM, lambda *_: (server.drain(), model.gate.set()))
        print("ready", flush=True)  # noqa: T201
        server.run()
    print("ended", flush=True)  # noqa: T201


def ask(path: Path, frames: Sequence[Frame]) -> list[LabelMap | MadError]:
    with ModelConnection(path) as connection:
        return connection.predict(frames)


def are_answers(answers: Sequence[LabelMap | MadError], frames: Sequence[Frame]) -> None:
    for answer, asked in zip(answers, frames, strict=True):
        assert not isinstance(answer, MadError), answer
        np.testing.assert_array_equal(answer, asked.rgb[:, :, 0])
        assert answer.flags.writeable


if __name__ == "__main__":
    serve_alone(sys.argv[1])
