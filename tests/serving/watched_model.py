"""A target of label maps in a folder, which files in the folder "control" beside it make wait, fail or die."""

import fcntl
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.folder_model import FolderModel
from mad_backend.settings import ModelSettings

KIND = "tests.serving.watched_model:WatchedModel"


class WatchedModel(FolderModel):
    """Looks for

    * `refuse-VERSION`: it does not load;
    * `single`: it does not load while another process has one, for lack of memory;
    * `full`, with a version: for that one there is no memory at all;
    * `wait`: predictions wait until it is gone, and `waiting` is there meanwhile;
    * `kill-STEM`: whoever predicts the image "pool/STEM" dies, as often as the file says.
    """

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        self._control = settings.required_path.parent / "control"
        if (self._control / f"refuse-{name}").exists():
            raise ModelError(f'model "{name}": it is told to refuse')
        self._lock = (self._control / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if (self._control / "single").exists():
                raise MemoryError from None
        full = self._control / "full"
        if full.exists() and full.read_text() == name:
            raise MemoryError
        super().__init__(name, settings, labels, grid)

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        for frame in frames:
            self._may_die(self._control / f"kill-{Path(frame.image_id).name}")
        if frames[0].image_id != "warm-up":
            self._wait()
        return super().predict(frames)

    def _wait(self) -> None:
        waiting = self._control / "waiting"
        while (self._control / "wait").exists():
            waiting.touch()
            time.sleep(0.01)
        waiting.unlink(missing_ok=True)

    @staticmethod
    def _may_die(order: Path) -> None:
        if order.exists():
            left = int(order.read_text()) - 1
            order.write_text(str(left)) if left else order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        self._lock.close()
