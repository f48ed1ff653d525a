"""Table 1 of the paper, for the rounds there are (Sec. 4.2), and what the gate decided."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mad_backend.core.metrics import image_miou
from mad_backend.core.statistics import bootstrap_difference, bootstrap_miou
from training.evaluate import competing_models, current_matrices, image_sets, target_versions
from training.project import Project
from training.promotion import Decision


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
    """A version less the one it started from, on one image set, paired by image, with its bootstrap 95 % interval."""

    before: str
    after: str
    image_set: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """Everything Table 1 is made from; `missing` are models and sets of which there is no measurement of today's."""

    cells: tuple[Cell, ...]
    changes: tuple[Change, ...]
    missing: tuple[str, ...] = ()

    def miou(self, model: str) -> dict[str, float]:
        """Dataset mIoU of one model by image set."""
        return {cell.image_set: cell.miou for cell in self.cells if cell.model == model}


def build_report(project: Project) -> Report:
    """From the confusion matrices on disk that are of models, images and label maps as they are now.

    Seeds of the bootstrap are fixed, so equal data give equal text.
    """
    latest = project.store.rounds.latest()
    sets = image_sets(project, latest.number if latest else 0)
    models = [*competing_models(project), *target_versions(project)]
    matrices = current_matrices(project, models, sets)
    counted = project.counted_classes
    cells = []
    for image_set in sets:
        for model in models:
            found = matrices.get((model.name, image_set.name))
            if found is None:
                continue
            interval = bootstrap_miou(found, seed=0, classes=counted)
            figures = (interval.value, interval.low, interval.high, image_miou(found, counted))
            cells.append(Cell(model.name, image_set.name, len(found), *figures))
    changes = []
    for before, after in _steps(project):
        for name in (s.name for s in sets):
            if (before, name) in matrices and (after, name) in matrices:
                pair = matrices[after, name], matrices[before, name]
                paired = bootstrap_difference(*pair, seed=0, classes=counted)
                changes.append(Change(before, after, name, paired.value, paired.low, paired.high))
    missing = [f"{m.name} on {s.name}" for s in sets for m in models if (m.name, s.name) not in matrices]
    return Report(tuple(cells), tuple(changes), tuple(missing))


def table_1(project: Project, report: Report) -> Table:
    """Models down, image sets across, competing models first and then f(0), f(1), ..., as in the paper."""
    versions = [v.version for v in project.store.versions.all()]
    names = [*sorted(project.settings.models.competing), *versions]
    sets = list(dict.fromkeys(cell.image_set for cell in report.cells))
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


def missing_line(report: Report) -> str | None:
    """What Table 1 leaves out because models, images or label maps changed since, or were never measured."""
    if not report.missing:
        return None
    return f"not measured as it is now, until a round evaluates again: {', '.join(report.missing)}"


def write_report(project: Project, report: Report) -> Path:
    """Writes the report as JSON into the workspace and returns its place."""
    return _write(project, "table-1", asdict(report))


def write_decision(project: Project, number: int, decision: Decision) -> Path:
    """Writes the gate's decision of a round with all its figures as JSON into the workspace and returns its place.

    Images of the failure suite come with where they lie.
    """
    figures = {"round": number, "promote": decision.promote, "reason": decision.reason, **asdict(decision)}
    figures["settings"] = project.settings.promotion.model_dump(mode="json")
    for image in figures["suite"]:
        image["path"] = project.pool[image["image_id"]].path
    return _write(project, f"round-{number:03d}", figures)


def decision_lines(project: Project) -> list[str]:
    """What the gate decided last, and every image that would have broken again, with where it lies."""
    for found in reversed(project.store.rounds.all()):
        if found.outcome:
            path = _path(project, f"round-{found.number:03d}")
            lines = [
                f"round {found.number}, {line}" if not n else f"  {line}"
                for n, line in enumerate(found.outcome.splitlines())
            ]
            suite = json.loads(path.read_text(encoding="utf-8"))["suite"] if path.exists() else []
            return lines + [
                f"  broke again: {i['image_id']} of {i['image_set']}, {_two(i['failed'])} when found, "
                f"{_two(i['level'])} by {i['fixed_by']}, {_two(i['now'])} now: {i['path']}"
                for i in suite
                if i["is_broken"]
            ]
    return []


def _two(miou: float | None) -> str:
    return "-" if miou is None else f"{miou:.2f}"


def _steps(project: Project) -> list[tuple[str, str]]:
    """Each version that was trained, after the one it started from."""
    targets = {f.number: f.target for f in project.store.rounds.all()}
    versions = project.store.versions.all()
    return [(before, v.version) for v in versions if (before := targets.get(v.round_number)) is not None]


def _path(project: Project, name: str) -> Path:
    return project.settings.workspace / "reports" / f"{name}.json"


def _write(project: Project, name: str, figures: dict[str, Any]) -> Path:
    path = _path(project, name)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(_plain(figures), indent=2, allow_nan=False), encoding="utf-8")
    temporary.replace(path)
    return path


def _plain(value: Any) -> Any:
    """JSON has no NaN: what has no value is null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _text(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return f"{cell.miou:.4f} [{cell.low:.3f}, {cell.high:.3f}], {cell.image_miou:.3f}"
