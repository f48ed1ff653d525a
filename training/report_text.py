"""Table 1 and what belongs to it in words and in tables for the terminal."""

import math
from collections.abc import Iterator

from rich import box
from rich.markup import escape
from rich.table import Table

from mad_backend.core.statistics import Estimate, images_needed
from training.report import Cell, Report

FIGURES = {
    "dataset_miou": "dataset mIoU",
    "image_miou": "mean image mIoU",
    "pixel_accuracy": "pixel accuracy",
}
"""Fields of `Figures` that are one number a model and set -> what people call them; the first is the headline."""


def figure(cell: Cell, name: str) -> Estimate:
    """One of `FIGURES` of a cell."""
    found: Estimate = getattr(cell.figures, name)
    return found


def table_1(report: Report) -> Table:
    """Models down, image sets across, competing models first and then f(0), f(1), ..., as in the paper."""
    table = Table(
        title=f"Table 1{over(report)} [95 % interval]", title_justify="left", box=box.SIMPLE, pad_edge=False
    )
    table.add_column("model", overflow="fold")
    table.add_column("figure", no_wrap=True)
    for name, count in report.images.items():
        table.add_column(f"{name}, {images(count)}", justify="right")
    for model in report.models:
        cells = [report.cell(model, image_set) for image_set in report.images]
        for name, title in FIGURES.items():
            label = escape(heading(report, model)) if name == "dataset_miou" else ""
            texts = [_whole(value_text(figure(cell, name))) if cell else "-" for cell in cells]
            table.add_row(label, title, *texts, end_section=name == "pixel_accuracy")
    return table


def class_table(report: Report, image_set: str) -> Table:
    """IoU of every class down, models across, on one image set; "-" where a class is in no label map."""
    title = f"IoU of every class on {image_set}, {images(report.images[image_set])} [95 % interval]"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("class", overflow="fold")
    cells = [cell for cell in report.cells if cell.image_set == image_set]
    for cell in cells:
        table.add_column(escape(heading(report, cell.model)), justify="right")
    for k, name in enumerate(report.classes):
        table.add_row(escape(name), *[_whole(value_text(cell.figures.per_class[k])) for cell in cells])
    return table


def change_lines(report: Report) -> list[str]:
    """One line per paired difference, in points of mIoU: to the version before, then to the best competing model."""
    changes = [f"{c.model} - {c.other} on {c.image_set}: {points_text(c.estimate)}" for c in report.changes]
    leads = [
        f"{c.model} - {c.other}, the best competing model on {c.image_set}: {points_text(c.estimate)}"
        for c in report.leads
    ]
    return changes + leads


def notes(report: Report) -> Iterator[str]:
    """What a reader of Table 1 has to know: sets too small for intervals, and what was not measured."""
    needed = images_needed(0.95)
    for name, count in report.images.items():
        if count < needed:
            yield f"{name} has {images(count)}, too few for its intervals to say anything: {needed} are needed"
    if report.missing:
        yield f"not measured as it is now, until a round evaluates again: {', '.join(report.missing)}"


def heading(report: Report, model: str) -> str:
    """The model's name; versions of the target say that they are."""
    return f"target {model}" if any(c.is_target for c in report.cells if c.model == model) else model


def over(report: Report) -> str:
    """Says so where mIoU is over some classes only."""
    return f", mIoU over {len(report.counted)} of {len(report.classes)} classes" if report.counted else ""


def images(count: int) -> str:
    """How many, as in "1 image", "30 images"."""
    return f"{count} image{'' if count == 1 else 's'}"


def value_text(found: Estimate) -> str:
    """A share with its interval; "-" where nothing was measured."""
    return "-" if math.isnan(found.value) else f"{found.value:.4f} [{found.low:.3f}, {found.high:.3f}]"


def points_text(found: Estimate) -> str:
    """A difference of mIoU in points, with its interval."""
    if math.isnan(found.value):
        return "no class that counts is there"
    return f"{100 * found.value:+.2f} points [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def _whole(text: str) -> str:
    """In a narrow terminal a cell breaks before its interval, not within."""
    return text.replace(", ", ",")
