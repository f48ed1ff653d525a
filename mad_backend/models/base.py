"""The one interface of all models: frames in, label maps on the common label set out."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet, class_table
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.settings import ModelSettings


class SegmentationModel(ABC):
    """Label maps on the common label set, of frames on the evaluation grid.

    `name` is the model's name in settings, or the version of a target; `own_classes` are the names of its outputs.
    """

    unused: ClassVar[frozenset[str]] = frozenset()
    """Settings without meaning for this kind; one that is set is refused, so that nobody believes in its effect."""

    def __init__(
        self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid, own_classes: Sequence[str]
    ) -> None:
        self.name = name
        self.settings = settings
        self.labels = labels
        self.grid = grid
        self.own_classes = tuple(own_classes)
        self._check_settings()
        self.table: LabelMap = class_table(name, own_classes, labels, settings.classes)
        self.key = model_key(name, type(self), settings, labels, grid)

    @property
    def class_ids(self) -> set[int]:
        """Ids of the label set that this model can answer."""
        return {int(k) for k in self.table if k < len(self.labels)}

    @abstractmethod
    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        """One (h, w) uint8 map per frame, of the frame's own shape; None where the model has no answer."""

    def close(self) -> None:  # noqa: B027 - most models have nothing to let go of
        """Ends what the model keeps open beside memory; it may be asked again afterwards."""

    @classmethod
    @abstractmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        """The files that shape this model's maps; a change in any of them is another model."""

    @classmethod
    def fingerprint(cls, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> str:  # noqa: ARG003
        """12 hex digits over weights, settings, label set and grid: the same digits mean the same maps.

        Where it runs and how much at once is not in it. `name` is for messages only.
        """
        digest = hashlib.sha256()
        shape = settings.model_dump_json(exclude={"batch_size", "device", "path", "config"})
        digest.update(f"{shape}\n{labels.names}\n{grid}\n".encode())
        for path in cls.files(settings):
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:12]

    def check_outputs(self, outputs: int) -> None:
        """Raises ModelError when the network does not have one output per class.

        One output for two classes is a score of the second: above 0 it is chosen.
        """
        known = len(self.own_classes)
        if outputs != known and (outputs, known) != (1, 2):
            raise ModelError(
                f'model "{self.name}": {self.settings.path} has {outputs} output classes, but {known} class '
                f'names are known for it (label set "{self.labels.name}"); list them under own_classes'
            )

    def mapped(self, own: NDArray[np.integer[Any]]) -> LabelMap:
        """Own class ids of any integer type as ids of the label set; ids of no class, and negative ones, are void."""
        if own.dtype == np.uint8:
            return np.take(self.table, own)
        ids = own.astype(np.int64)
        void = len(self.table) - 1
        ids[(ids < 0) | (ids > void)] = void
        return np.take(self.table, ids)

    def _check_settings(self) -> None:
        defaults = type(self.settings).model_fields
        pointless = sorted(n for n in self.unused if getattr(self.settings, n) != defaults[n].default)
        if pointless:
            raise ModelError(
                f'model "{self.name}": {", ".join(pointless)} has no meaning for kind "{self.settings.kind}"; '
                "leave it out"
            )


def model_key(
    name: str, model_class: type[SegmentationModel], settings: ModelSettings, labels: LabelSet, grid: Grid
) -> str:
    """The name under which a model's maps are stored; known without loading its weights into a network."""
    return f"{name}-{model_class.fingerprint(name, settings, labels, grid)}"


def missing_file(model: str, path: Path, wanted: str) -> ModelError:
    """The error for a checkpoint, configuration or folder that is not there."""
    return ModelError(f'model "{model}": there is no {path}; wanted {wanted}')
