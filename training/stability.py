"""How many images of T the ranking of the models needs (Fig. 7), for every T and all together."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from mad_backend.core.stability import StabilityPoint, stability_curve, stable_from
from mad_backend.errors import StoreError
from training.evaluate import T0, competing_models, current_matrices, image_sets, target_versions
from training.pages import bullets, page, paragraph, plot, section, table
from training.plots import Curve, curves_svg
from training.project import Project

METHOD = (
    "All models are ranked by dataset mIoU on the first k images of T, in the order drawn, and on all of them; SRCC is "
    "Spearman's correlation of the two rankings, 1 where they are the same. Brackets, bands and bars: the middle 95 % "
    "of 200 other orders of the same images. A curve ends in 1 by itself, as its last images are nearly all there are."
)
LEAST = 5
"""Sizes at the end of a curve that make a ranking stable; the very last ones agree with themselves."""
TITLE = "How many test images the ranking of the models needs"


@dataclass(frozen=True)
class Stability:
    """The curve of one test set, over the models that were measured on it."""

    image_set: str
    models: tuple[str, ...]
    points: tuple[StabilityPoint, ...]

    @property
    def settled(self) -> int | None:
        """The size from which on the ranking is stable to the end, for `LEAST` sizes or more; None if there is none."""
        starts = range(len(self.points) - LEAST + 1)
        ends = (self.points[start:] for start in starts)
        return next((rest[0].images for rest in ends if stable_from(rest, running=len(rest))), None)

    @property
    def line(self) -> str:
        """From how many images on the ranking stays."""
        who = f"{self.image_set}: the ranking of {len(self.models)} models"
        if self.settled is None:
            return f"{who} does not settle: a larger T may tell another"
        fewer = "; fewer were not looked at" if self.settled == self.points[0].images else ""
        return f"{who} stays as it is from {self.settled} images on (SRCC 0.95 or more){fewer}"


def build_stability(project: Project) -> tuple[Stability, ...]:
    """Of T(1), T(2), ..., and of all of them one after the other where there are two or more.

    Raises StoreError where no T was measured with two models or more.
    """
    latest = project.store.rounds.latest()
    sets = [s for s in image_sets(project, latest.number if latest else 0) if s.name != T0]
    models = [*competing_models(project), *target_versions(project)]
    matrices = current_matrices(project, models, sets)
    groups = [[s.name] for s in sets] + ([[s.name for s in sets]] if len(sets) > 1 else [])
    found = []
    for names in groups:
        measured = {
            m.name: np.concatenate([matrices[m.name, name] for name in names])
            for m in models
            if all((m.name, name) in matrices for name in names)
        }
        if len(measured) > 1:
            points = stability_curve(measured, project.counted_classes)
            title = f"{names[0]}..{names[-1]}" if len(names) > 1 else names[0]
            found.append(Stability(title, tuple(measured), points))
    if not found:
        raise StoreError(
            "no T is there on which two models or more were measured; the evaluating step of a round does"
        )
    return tuple(found)


def stability_table(found: Iterable[Stability]) -> Table:
    """Sizes down, test sets across."""
    columns = list(found)
    shown = Table(
        title="SRCC with the ranking by all images [95 % of orders]", title_justify="left", box=box.SIMPLE
    )
    shown.add_column("images", justify="right")
    for one in columns:
        shown.add_column(one.image_set, justify="right")
    for row in _rows(columns):
        shown.add_row(*row)
    return shown


def stability_svg(found: Iterable[Stability]) -> str:
    """Fig. 7: a curve a test set."""
    curves = [
        Curve(
            one.image_set,
            [point.images for point in one.points],
            [point.srcc for point in one.points],
            [point.low for point in one.points],
            [point.high for point in one.points],
        )
        for one in found
    ]
    return curves_svg(
        curves,
        title=TITLE,
        x_label="images k",
        y_label="SRCC with the ranking by all images",
        whole_x=True,
        most=1.0,
    )


def stability_page(found: Iterable[Stability]) -> str:
    """Plot and table as one HTML file."""
    columns = list(found)
    headers = ["images", *(one.image_set for one in columns)]
    body = bullets(one.line for one in columns) + paragraph(METHOD) + plot(stability_svg(columns))
    return page(TITLE, body + section("Numbers", table(headers, _rows(columns), text_columns=0)))


def stability_fields(found: Iterable[Stability]) -> list[dict[str, Any]]:
    """For JSON."""
    return [{**asdict(one), "settled": one.settled} for one in found]


def _rows(found: list[Stability]) -> list[list[str]]:
    sizes = sorted({point.images for one in found for point in one.points})
    columns = [{point.images: point for point in one.points} for one in found]
    return [[str(size), *(_text(column.get(size)) for column in columns)] for size in sizes]


def _text(point: StabilityPoint | None) -> str:
    if point is None:
        return ""
    return "-" if math.isnan(point.srcc) else f"{point.srcc:.3f} [{point.low:.3f}, {point.high:.3f}]"
