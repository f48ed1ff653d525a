"""The promoted target, loaded in this process: for one process without a model process beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Frame, ModelVersion
from mad_backend.errors import AbandonedError, MadError, StoreError
from mad_backend.models.base import SegmentationModel
from mad_backend.serving.forward import forward
from mad_backend.serving.targets import HeldTarget, IsAbandoned, TargetState, TargetStatus, never
from mad_backend.settings import Settings
from mad_backend.store.store import Store
from mad_backend.targets import load_target, target_key


class LocalTarget:
    """One version; the model is loaded by the first `predict`, and used by one thread at a time."""

    def __init__(self, version: ModelVersion, settings: Settings, labels: LabelSet, grid: Grid) -> None:
        self.version = version.version
        self.key = target_key(version, settings, labels, grid)
        self.holders = 0
        self._load = partial(load_target, version, settings, labels, grid)
        self._model: SegmentationModel | None = None
        self._lock = Lock()

    def predict(
        self, frames: Sequence[Frame], is_abandoned: IsAbandoned = never
    ) -> list[LabelMap | MadError]:
        with self._lock:
            if is_abandoned():
                raise AbandonedError("nobody waits for the answer any more")
            self._model = self._model or self._load()
            return forward(self._model, frames)

    def close(self) -> None:
        with self._lock:
            if self._model:
                self._model.close()
            self._model = None


class LocalTargets:
    """`Targets` whose model is in this process; a version that was replaced goes when nobody holds it any more."""

    def __init__(self, store: Store, settings: Settings, labels: LabelSet) -> None:
        self._store = store
        self._settings = settings
        self._labels = labels
        self._grid = Grid(settings.grid.size, settings.grid.fit)
        self._current: LocalTarget | None = None
        self._lock = Lock()

    def served_version(self) -> str | None:
        promoted = self._store.versions.promoted()
        return promoted.version if promoted else None

    def status(self) -> TargetStatus:
        version = self.served_version()
        return TargetStatus(version, TargetState.READY if version else TargetState.UNPROMOTED)

    @contextmanager
    def hold(self) -> Iterator[HeldTarget]:
        target = self._taken()
        try:
            yield target
        finally:
            self._give_back(target)

    def close(self) -> None:
        with self._lock:
            target, self._current = self._current, None
        if target:
            target.close()

    def _taken(self) -> LocalTarget:
        promoted = self._store.versions.promoted()
        if promoted is None:
            raise StoreError("no target version is promoted yet; start a round with `mad new-round`")
        with self._lock:
            before = self._current
            if before is None or before.version != promoted.version:
                self._current = LocalTarget(promoted, self._settings, self._labels, self._grid)
                if before and not before.holders:
                    before.close()
            assert self._current
            self._current.holders += 1
            return self._current

    def _give_back(self, target: LocalTarget) -> None:
        with self._lock:
            target.holders -= 1
            is_left = target is not self._current and not target.holders
        if is_left:
            target.close()
