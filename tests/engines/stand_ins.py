"""A reader and models that processes of engines import by name."""

import os
import signal
import sys
import time
from collections.abc import Sequence

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame, PoolImage
from mad_backend.errors import ModelError
from mad_backend.models.folder_model import FolderModel
from mad_backend.pool.files import read_bytes

TRACE = "asked.txt"
CLOSED = "closed.txt"


def read(image: PoolImage) -> bytes:
    return read_bytes(image.path)


class Traced(FolderModel):
    """Slow, and leaves a line "process node" beside its label maps for every chunk; node is Ray's."""

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        ray = sys.modules.get("ray")
        node = ray.get_runtime_context().get_node_id() if ray and ray.is_initialized() else "none"
        with (self.settings.required_path / TRACE).open("a") as file:
            file.write(f"{os.getpid()} {node}\n")
        time.sleep(0.1)
        return super().predict(frames)

    def close(self) -> None:
        (self.settings.required_path / CLOSED).touch()


class Refusing(FolderModel):
    """Answers the first two chunks of four."""

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        if any(frame.image_id == "d/009" for frame in frames):
            raise ModelError(f'model "{self.name}": no answer to d/009')
        return super().predict(frames)


class Faulty(FolderModel):
    """Has a programming error."""

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        return super().predict(frames[: len(frames) // 0])


class Deadly(FolderModel):
    """Takes its process with it, as the kernel does when memory runs out."""

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        if any(frame.image_id == "d/009" for frame in frames):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(frames)
