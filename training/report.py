"""What Table 1 of the paper is made from, for the rounds there are (Sec. 4.2; method.md section 7)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import dataset_miou
from mad_backend.core.statistics import Estimate, Figures, estimate_all, estimate_difference
from training.evaluate import competing_models, current_matrices, image_sets, target_versions
from training.project import Project

Matrices: TypeAlias = Mapping[tuple[str, str], NDArray[np.int64]]
"""(model, image set) -> (n, C, C + 1), as `current_matrices` gives them."""


@dataclass(frozen=True)
class Cell:
    """One model on one image set, with 95 % intervals; `is_target`: a version of the target, no competing model."""

    model: str
    image_set: str
    is_target: bool
    figures: Figures


@dataclass(frozen=True)
class Difference:
    """Dataset mIoU of `model` less that of `other` on one image set, paired by image, with its 95 % interval."""

    model: str
    other: str
    image_set: str
    estimate: Estimate


@dataclass(frozen=True)
class Report:
    """Everything Table 1 is made from: cells by set, competing models first, and then f(0), f(1), ...

    `classes` are all class names by id, `counted` those that mIoU is over, empty for all that are present. `changes`:
    every version less the one it started from. `leads`: every version less the competing model that is best on that
    set by dataset mIoU; as the best is picked on the same images, a lead is rather told too small than too large.
    `missing` are models and sets of which there is no measurement of today's.
    """

    classes: tuple[str, ...]
    counted: tuple[str, ...]
    cells: tuple[Cell, ...]
    changes: tuple[Difference, ...]
    leads: tuple[Difference, ...]
    missing: tuple[str, ...] = ()

    @property
    def models(self) -> list[str]:
        """Every measured model once, in the order of the rows of Table 1."""
        competing = dict.fromkeys(c.model for c in self.cells if not c.is_target)
        return [*competing, *dict.fromkeys(c.model for c in self.cells if c.is_target)]

    @property
    def images(self) -> dict[str, int]:
        """Image set -> number of its images, in the order of the columns of Table 1."""
        return {cell.image_set: cell.figures.images for cell in self.cells}

    def cell(self, model: str, image_set: str) -> Cell | None:
        """None where the model was not measured on the set as it is now."""
        return next((c for c in self.cells if (c.model, c.image_set) == (model, image_set)), None)

    def miou(self, model: str) -> dict[str, float]:
        """Dataset mIoU of one model by image set."""
        return {c.image_set: c.figures.dataset_miou.value for c in self.cells if c.model == model}


def build_report(project: Project) -> Report:
    """From the confusion matrices on disk that are of models, images and label maps as they are now."""
    latest = project.store.rounds.latest()
    sets = image_sets(project, latest.number if latest else 0)
    competing, versions = competing_models(project), target_versions(project)
    matrices = current_matrices(project, [*competing, *versions], sets)
    counted = project.counted_classes
    rivals, names = [m.name for m in competing], [s.name for s in sets]
    places = [(model.name, name) for name in names for model in [*competing, *versions]]
    return Report(
        project.labels.names,
        tuple(project.labels.names[k] for k in counted or ()),
        tuple(
            Cell(model, name, model not in rivals, estimate_all(matrices[model, name], classes=counted))
            for model, name in places
            if (model, name) in matrices
        ),
        tuple(_differences(matrices, _changes(project, names), counted)),
        tuple(
            _differences(
                matrices, _leads(matrices, [v.name for v in versions], rivals, names, counted), counted
            )
        ),
        tuple(f"{model} on {name}" for model, name in places if (model, name) not in matrices),
    )


def _differences(
    matrices: Matrices, pairs: Iterable[tuple[str, str, str]], counted: Sequence[int] | None
) -> Iterator[Difference]:
    """Of (model, other, image set), as far as both are measured."""
    for model, other, name in pairs:
        if (model, name) in matrices and (other, name) in matrices:
            pair = matrices[model, name], matrices[other, name]
            yield Difference(model, other, name, estimate_difference(*pair, classes=counted))


def _changes(project: Project, sets: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Each version that was trained, and the one it started from, on every set."""
    targets = {f.number: f.target for f in project.store.rounds.all()}
    for version in project.store.versions.all():
        before = targets.get(version.round_number)
        if before is not None:
            yield from ((version.version, before, name) for name in sets)


def _leads(
    matrices: Matrices,
    versions: Sequence[str],
    rivals: Sequence[str],
    sets: Sequence[str],
    counted: Sequence[int] | None,
) -> Iterator[tuple[str, str, str]]:
    """Each version and the competing model with the largest dataset mIoU, on every set; of equals the first by name."""
    for name in sets:
        mious = {r: dataset_miou(matrices[r, name], counted) for r in rivals if (r, name) in matrices}
        measured = {rival: miou for rival, miou in mious.items() if not np.isnan(miou)}
        if measured:
            best = max(measured, key=measured.__getitem__)
            yield from ((version, best, name) for version in versions)
