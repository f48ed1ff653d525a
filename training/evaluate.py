"""Every model on T(0) and on T(1..i): per-image confusion matrices, kept for the report (method.md section 7)."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import confusion_matrix, dataset_miou
from mad_backend.core.testset import main_foreground, surplus
from mad_backend.engines.local import LocalEngine
from mad_backend.errors import CorruptFileError
from mad_backend.models.base import SegmentationModel
from mad_backend.pool.images import read_label_map
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.sources import LabelledImage
from mad_backend.scan import predict_images
from mad_backend.store.versions import EvaluationRow
from training.project import Project

T0 = "T(0)"


@dataclass(frozen=True)
class ImageSet:
    """A labelled image set by its name, "T(0)", "T(1)", ..."""

    name: str
    items: tuple[LabelledImage, ...]


def image_sets(project: Project, last_round: int) -> list[ImageSet]:
    """T(0)'s reported part and T(1..last_round) with the masks that count, surplus images dropped."""
    sets = [ImageSet(T0, tuple(project.t0_report))]
    for number in range(1, last_round + 1):
        items = _test_items(project, number)
        if items:
            sets.append(ImageSet(f"T({number})", tuple(items)))
    return sets


def evaluate_all(
    project: Project,
    models: Sequence[SegmentationModel],
    sets: Sequence[ImageSet],
    progress: Callable[[int, int], None],
) -> None:
    """Records the confusion matrices of every model on every set; what was measured before is left alone.

    Maps are compared with the human label map at the image's own size.
    """
    known = {(row.model, row.image_set): row.images for row in project.store.versions.evaluations()}
    for done, image_set in enumerate(sets):
        lacking = [m for m in models if known.get((m.name, image_set.name)) != len(image_set.items)]
        if lacking:
            images = [item.image for item in image_set.items]
            predict_images(
                images,
                lacking,
                project.predictions,
                project.open_ledger(),
                partial(LocalEngine, lacking, project.grid, project.reader.read),
                project.settings.scan.chunk,
            )
            for model in lacking:
                _record(project, model, image_set, matrices_of(project, model.key, image_set.items))
        progress(done + 1, len(sets))


def matrices_of(project: Project, key: str, items: Sequence[LabelledImage]) -> NDArray[np.int64]:
    """(n, C, C + 1) int64, one confusion matrix an image, of the label maps stored under `key`."""
    with project.predictions.open(key) as pack:
        matrices = []
        for item in items:
            truth = read_label_map(item.mask)
            label_map = pack.read(item.image.image_id) if item.image.image_id in pack else None
            prediction = _restored(project.grid, label_map, truth)
            matrices.append(confusion_matrix(truth, prediction, len(project.labels)))
    return np.stack(matrices)


def read_matrices(row: EvaluationRow) -> NDArray[np.int64]:
    """(n, C, C + 1) int64 per-image confusion matrices; raises CorruptFileError if the file changed."""
    raw = Path(row.path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != row.sha256:
        raise CorruptFileError(
            f"{row.path} changed since {row.model} was measured on {row.image_set}; evaluate again"
        )
    matrices: NDArray[np.int64] = np.load(io.BytesIO(raw), allow_pickle=False)["matrices"]
    return matrices


def measure_on(
    items: Sequence[LabelledImage],
    reader: PoolReader,
    grid: Grid,
    classes: int,
    counted: Sequence[int] | None = None,
) -> Callable[[SegmentationModel], float]:
    """A function model -> dataset mIoU on `items`, over the `counted` ids or all present.

    It keeps the images in memory for the next epoch.
    """
    frames = [reader.frame(i.image, grid) for i in items]
    truths = [read_label_map(i.mask) for i in items]

    def measure(model: SegmentationModel) -> float:
        matrices = [
            confusion_matrix(truth, _restored(grid, label_map, truth), classes)
            for start in range(0, len(frames), 16)
            for truth, label_map in zip(
                truths[start : start + 16], model.predict(frames[start : start + 16]), strict=True
            )
        ]
        return dataset_miou(np.stack(matrices), counted)

    return measure


def _restored(grid: Grid, label_map: LabelMap | None, truth: LabelMap) -> LabelMap:
    if label_map is None:
        # No answer is a miss on every pixel, not an image left out.
        return np.full(truth.shape, 255, np.uint8)
    return grid.restore(label_map, *truth.shape)


def _test_items(project: Project, number: int) -> list[LabelledImage]:
    masks = project.store.final_masks(number)
    drawn = [i for i in project.store.choices.test_set(number) if i in masks and i in project.pool]
    cap = project.settings.test_set.per_class
    if cap is not None:
        main = {i: main_foreground(read_label_map(Path(masks[i].path)), project.labels) for i in drawn}
        dropped = set(surplus(drawn, main, cap))
        drawn = [i for i in drawn if i not in dropped]
    return [LabelledImage(project.pool[i], Path(masks[i].path)) for i in drawn]


def _record(
    project: Project, model: SegmentationModel, image_set: ImageSet, matrices: NDArray[np.int64]
) -> None:
    folder = project.settings.workspace / "evaluations" / model.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{image_set.name.strip(')').replace('(', '')}.npz"
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, matrices=matrices, images=np.array([i.image.image_id for i in image_set.items])
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    row = EvaluationRow(model.name, image_set.name, len(image_set.items), str(path), digest)
    project.store.versions.record_evaluation(row)
