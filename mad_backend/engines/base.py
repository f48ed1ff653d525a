"""What a scan hands out and gets back, and the one interface of all engines."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import PoolImage
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import load_model
from mad_backend.pool.ledger import SeenImage
from mad_backend.pool.predictions import StoredMap
from mad_backend.settings import ModelSettings

Task = TypeVar("Task")
Handle = TypeVar("Handle")
IN_FLIGHT = 3
"""Chunks at once for one set of models: one is read, one is predicted, one is compressed."""
ReadBytes = Callable[[PoolImage], bytes]
"""The bytes of an image file; raises ImageError. Must be picklable for engines of several processes."""


@dataclass(frozen=True)
class WantedImage:
    """An image of a chunk; `stored` has one entry a model: of which content it has a label map, None if it has none."""

    image: PoolImage
    stored: tuple[int | None, ...]


@dataclass(frozen=True)
class ChunkTask:
    """Images that are read, predicted and written together."""

    number: int
    images: tuple[WantedImage, ...]


@dataclass
class ChunkResult:
    """What became of a chunk: content that was read, one list of new label maps a model, and what failed.

    `unanswered` has one list of image ids a model; `model_s` are seconds in the models.
    """

    number: int
    images: int
    maps: tuple[list[StoredMap], ...]
    unanswered: tuple[list[str], ...]
    seen: list[SeenImage] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    model_s: float = 0.0


@dataclass(frozen=True)
class ModelRecipe:
    """How to load a model where it is needed: in this process, on another device or on another node."""

    name: str
    settings: ModelSettings
    labels: LabelSet
    grid: Grid

    def load(self, device: str | None = None) -> SegmentationModel:
        """The model, on `device` in place of the one that its settings name; raises what `load_model` raises."""
        return load_model(self.name, self.settings, self.labels, self.grid, device)


class Engine(ABC):
    """Does the tasks of a scan; a context manager, so that processes and models are let go."""

    @property
    def replicas(self) -> int:
        """How many sets of models are at work."""
        return 1

    @abstractmethod
    def run(self, tasks: Iterable[ChunkTask]) -> Iterator[ChunkResult]:
        """Results in the order of the tasks; what a model raises comes in its turn, after the results before it.

        Tasks are taken as there is room for them. After a run that was left in the middle an engine can only be closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of what the engine holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def in_order(
    tasks: Iterable[Task],
    submit: Callable[[Task], Handle],
    wait: Callable[[Handle], ChunkResult],
    ahead: int,
) -> Iterator[ChunkResult]:
    """Keeps `ahead` tasks submitted and gives their results in order."""
    waiting: deque[Handle] = deque()
    for task in tasks:
        waiting.append(submit(task))
        if len(waiting) >= ahead:
            yield wait(waiting.popleft())
    while waiting:
        yield wait(waiting.popleft())
