"""A model keeper that runs beside the test, and the targets that web workers have of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from mad_backend.core.records import Frame
from mad_backend.serving.children import Child
from mad_backend.serving.model_keeper import ModelKeeper, Patience
from mad_backend.serving.promotion_watch import PromotionWatch
from mad_backend.serving.remote_targets import RemoteTargets
from mad_backend.serving.targets import Targets, TargetState
from mad_backend.settings import Settings
from mad_backend.store.store import Store
from tests.served_world import HEIGHT, NOW, WIDTH, World
from tests.serving.watched_model import KIND

ROOT = Path(__file__).parents[2]
LONG_S = 20.0
QUICK = Patience(pauses_s=(0, 0.1, 0.5), linger_s=0.1)


class Kept:
    """`targets` of a world, whose processes do as `order` says; `gone` are the ids of those that ended."""

    def __init__(self, world: World, folder: Path, keeper: ModelKeeper, gone: list[int]) -> None:
        self.world = world
        self.targets = RemoteTargets(world.store, folder, patience_s=LONG_S)
        self.gone = gone
        self._keeper = keeper

    def order(self, name: str, text: str = "") -> Path:
        path = self.world.root / "control" / name
        path.write_text(text)
        return path

    def promote(self, version: str) -> None:
        self.world.store.versions.promote(version, NOW, "test")

    def running(self) -> list[int]:
        """Process ids, that of the one which serves first."""
        return [child.pid for child in self._keeper.children() if child.status() is None]

    def ask(self, *stems: str) -> tuple[str, list[object]]:
        return ask(self.world, self.targets, *stems)

    def is_ready(self, version: str) -> bool:
        status = self.targets.status()
        return (status.version, status.state) == (version, TargetState.READY)


def frame(world: World, stem: str) -> Frame:
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Frame(f"pool/{stem}", world.grid.image(rgb), (HEIGHT, WIDTH))


def ask(world: World, targets: Targets, *stems: str) -> tuple[str, list[object]]:
    """The version that answered, and for each of the pool's images the class of its left half, or the error."""
    with targets.hold() as target:
        answers = target.predict([frame(world, stem) for stem in stems])
        return target.version, [a if isinstance(a, Exception) else int(a[0, 0]) for a in answers]


def until(is_so: Callable[[], bool], seconds: float = LONG_S) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to this in time"
        time.sleep(0.01)


@contextmanager
def keeping(world: World, folder: Path, settings: Settings | None = None) -> Iterator[Kept]:
    """A thread of the test does what the supervisor does."""
    used = settings or world.with_target(kind=KIND)
    (world.root / "control").mkdir(exist_ok=True)
    folder.mkdir(mode=0o700)
    gone: list[int] = []
    stopped = Event()

    def start(work: str, job: object) -> Child:
        return Child(work, job, folder, {})

    keeper = ModelKeeper(used, folder, start, gone.append, QUICK)
    with closing(Store(used.database_url)) as store, closing(PromotionWatch(store, used, 0.05)) as watch:

        def step_on() -> None:
            while not stopped.wait(0.01):
                keeper.step(watch.wanted)

        thread = Thread(target=step_on)
        thread.start()
        try:
            yield Kept(world, folder, keeper, gone)
        finally:
            stopped.set()
            thread.join()
            for child in keeper.children():
                child.close()


@pytest.fixture
def kept(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    monkeypatch.syspath_prepend(ROOT)
    with keeping(world, tmp_path / "k") as found:
        yield found
