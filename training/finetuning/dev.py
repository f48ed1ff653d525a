"""The dev set: labelled images that choose epoch, learning rate and interpolation, and are never learnt or reported."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import confusion_matrix, dataset_miou
from mad_backend.core.records import Frame, PoolImage
from mad_backend.models.base import SegmentationModel
from mad_backend.pool.images import decode_frame
from training.finetuning.files import write_bytes
from training.finetuning.samples import Sample

MATRICES = "dev.npz"
BATCH = 16
"""Images that a model is shown at once."""


@dataclass(frozen=True)
class DevScore:
    """Dataset mIoU on the dev part of T(0), and on the held-out part of S (None where nothing is held out)."""

    benchmark: float
    failures: float | None = None
    matrices: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    """(n, C, C + 1) confusion matrices of all these images, T(0)'s first; None where they are not known."""

    def told(self) -> dict[str, float | None]:
        """What files keep of it."""
        return {"benchmark": self.benchmark, "failures": self.failures}

    def write(self, folder: Path) -> None:
        """Keeps the matrices in `folder`, by which runs are compared."""
        if self.matrices is not None:
            content = io.BytesIO()
            np.savez_compressed(content, matrices=self.matrices)
            write_bytes(folder / MATRICES, content.getvalue())

    @property
    def value(self) -> float:
        """What epochs and rates are compared by: the mean of both."""
        return self.benchmark if self.failures is None else (self.benchmark + self.failures) / 2


class DevSet:
    """Images and label maps in memory, measured after each epoch; mIoU over the `counted` ids, or all present."""

    def __init__(
        self,
        benchmark: Sequence[Sample],
        failures: Sequence[Sample],
        grid: Grid,
        classes: int,
        counted: Sequence[int] | None = None,
    ) -> None:
        self._grid, self._classes, self._counted = grid, classes, counted
        self._benchmark = _loaded(benchmark, grid)
        self._failures = _loaded(failures, grid)

    def score(self, model: SegmentationModel) -> DevScore:
        """Of the model as it is now, maps compared with the human label map at the image's own size."""
        matrices = _matrices(model, [*self._benchmark, *self._failures], self._grid, self._classes)
        benchmark, failures = np.split(matrices, [len(self._benchmark)])
        held_out = dataset_miou(failures, self._counted) if len(failures) else None
        return DevScore(dataset_miou(benchmark, self._counted), held_out, matrices)


def read_matrices(folder: Path) -> NDArray[np.int64] | None:
    """What `DevScore.write` kept, if it did."""
    path = folder / MATRICES
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        matrices: NDArray[np.int64] = kept["matrices"]
    return matrices


def confusion_matrices(
    model: SegmentationModel, samples: Sequence[Sample], grid: Grid, classes: int
) -> NDArray[np.int64]:
    """(n, C, C + 1) int64, one a sample, at the image's own size; few images are in memory at once."""
    parts = [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]
    return np.concatenate([_matrices(model, _loaded(part, grid), grid, classes) for part in parts])


def _matrices(
    model: SegmentationModel, items: Sequence[tuple[Frame, LabelMap]], grid: Grid, classes: int
) -> NDArray[np.int64]:
    matrices = []
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        for (_, truth), label_map in zip(part, model.predict([f for f, _ in part]), strict=True):
            prediction = (
                np.full(truth.shape, 255, np.uint8)
                if label_map is None
                else grid.restore(label_map, *truth.shape)
            )
            matrices.append(confusion_matrix(truth, prediction, classes))
    return np.stack(matrices)


def _loaded(samples: Sequence[Sample], grid: Grid) -> list[tuple[Frame, LabelMap]]:
    return [(_frame(sample, grid), sample.truth.read()) for sample in samples]


def _frame(sample: Sample, grid: Grid) -> Frame:
    return decode_frame(PoolImage(sample.image_id, str(sample.image)), sample.image.read_bytes(), grid)
