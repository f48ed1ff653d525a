"""Table 1 of the paper, for the rounds there are (Sec. 4.2)."""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from rich.table import Table

from mad_backend.core.metrics import dataset_miou, image_miou
from mad_backend.core.statistics import bootstrap_difference, bootstrap_miou
from training.evaluate import read_matrices
from training.project import Project


@dataclass(frozen=True)
class Cell:
    """One model on one image set: dataset mIoU with its bootstrap 95 % interval, and the mean image mIoU."""

    model: str
    image_set: str
    images: int
    miou: float
    low: float
    high: float
    image_miou: float


@dataclass(frozen=True)
class Change:
    """f(i) - f(i-1) on one image set, paired by image, with its bootstrap 95 % interval."""

    before: str
    after: str
    image_set: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """Everything Table 1 and the gate are made from."""

    cells: tuple[Cell, ...]
    changes: tuple[Change, ...]

    def miou(self, model: str) -> dict[str, float]:
        """Dataset mIoU of one model by image set."""
        return {cell.image_set: cell.miou for cell in self.cells if cell.model == model}


def build_report(project: Project) -> Report:
    """From the confusion matrices on disk; seeds of the bootstrap are fixed, so equal data give equal text."""
    matrices = {(r.model, r.image_set): read_matrices(r) for r in project.store.versions.evaluations()}
    counted = project.counted_classes
    cells = []
    for (model, image_set), found in sorted(matrices.items()):
        interval = bootstrap_miou(found, seed=0, classes=counted)
        cells.append(
            Cell(
                model,
                image_set,
                len(found),
                dataset_miou(found, counted),
                interval.low,
                interval.high,
                image_miou(found, counted),
            )
        )
    changes = []
    versions = [v.version for v in project.store.versions.all()]
    for before, after in pairwise(versions):
        for (model, image_set), found in sorted(matrices.items()):
            if model == after and (before, image_set) in matrices:
                paired = bootstrap_difference(found, matrices[before, image_set], seed=0, classes=counted)
                changes.append(Change(before, after, image_set, paired.value, paired.low, paired.high))
    return Report(tuple(cells), tuple(changes))


def table_1(project: Project, report: Report) -> Table:
    """Models down, image sets across, competing models first and then f(0), f(1), ..., as in the paper."""
    versions = [v.version for v in project.store.versions.all()]
    names = [*sorted(project.settings.models.competing), *versions]
    sets = sorted({cell.image_set for cell in report.cells})
    over = (
        f" over {len(counted)} of {len(project.labels)} classes"
        if (counted := project.counted_classes)
        else ""
    )
    title = f"Table 1: dataset mIoU{over} [95 % interval], mean image mIoU"
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    by_place = {(cell.model, cell.image_set): cell for cell in report.cells}
    for name in sets:
        count = next(cell.images for cell in report.cells if cell.image_set == name)
        table.add_column(f"{name}, {count} images", justify="right")
    for name in names:
        label = f"target {name}" if name in versions else name
        table.add_row(label, *[_text(by_place.get((name, image_set))) for image_set in sets])
    return table


def change_lines(report: Report) -> list[str]:
    """One line per paired difference, in points of mIoU."""
    return [
        f"{c.after} - {c.before} on {c.image_set}: {100 * c.difference:+.2f} points "
        f"[{100 * c.low:+.2f}, {100 * c.high:+.2f}]"
        for c in report.changes
    ]


def write_report(project: Project, report: Report) -> Path:
    """Writes the report as JSON into the workspace and returns its place."""
    folder = project.settings.workspace / "reports"
    folder.mkdir(exist_ok=True)
    path = folder / "table-1.json"
    path.write_text(json.dumps(asdict(report), indent=2), encoding="utf-8")
    return path


def _text(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return f"{cell.miou:.4f} [{cell.low:.3f}, {cell.high:.3f}], {cell.image_miou:.3f}"
