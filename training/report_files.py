"""Table 1 as JSON and as CSV for other programs, and the files that a round leaves of it."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mad_backend.core.statistics import Estimate
from mad_backend.errors import SettingsError
from training.project import Project
from training.report import Cell, Difference, Report
from training.report_page import report_page
from training.report_text import FIGURES, figure

COLUMNS = ("model", "minus", "image_set", "figure", "class", "value", "low", "high", "images")
"""Of the CSV: `minus` names the other model of a difference, `class` the class of an IoU; both are empty elsewhere."""


def report_json(report: Report) -> str:
    """One object: classes, counted, cells, changes, leads, missing; what has no value is null."""
    return as_json(
        {
            "classes": report.classes,
            "counted": report.counted,
            "cells": [_cell_json(report, cell) for cell in report.cells],
            "changes": [_difference_json(one) for one in report.changes],
            "leads": [_difference_json(one) for one in report.leads],
            "missing": report.missing,
        }
    )


def report_csv(report: Report) -> str:
    """A row per model, image set, figure and class, with `COLUMNS`; what has no value is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_csv_rows(report))
    return text.getvalue()


def write_report(project: Project, report: Report, decision: Sequence[str]) -> Path:
    """Writes table-1.json, .csv and .html into the workspace's reports and returns the place of the first."""
    path = reports_folder(project) / "table-1.json"
    write_text(path.with_suffix(".csv"), report_csv(report))
    write_text(path.with_suffix(".html"), report_page(report, decision))
    write_text(path, report_json(report))
    return path


def reports_folder(project: Project) -> Path:
    """Where reports of rounds lie."""
    folder = project.settings.workspace / "reports"
    folder.mkdir(exist_ok=True)
    return folder


def as_json(value: Any) -> str:
    """JSON has no NaN: what has no value is null."""
    return json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Writes under a temporary name and renames; raises SettingsError when nothing can be written there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SettingsError(f"{path} cannot be written: {error.strerror}; give another place") from error


def _cell_json(report: Report, cell: Cell) -> dict[str, Any]:
    return {
        "model": cell.model,
        "image_set": cell.image_set,
        "is_target": cell.is_target,
        "images": cell.figures.images,
        **{name: asdict(figure(cell, name)) for name in FIGURES},
        "per_class": {
            name: asdict(iou) for name, iou in zip(report.classes, cell.figures.per_class, strict=True)
        },
    }


def _difference_json(one: Difference) -> dict[str, Any]:
    return {
        "model": one.model,
        "minus": one.other,
        "image_set": one.image_set,
        **asdict(one.estimate),
    }


def _csv_rows(report: Report) -> Iterator[list[str | int | float]]:
    for cell in report.cells:
        count = cell.figures.images
        for name in FIGURES:
            yield [cell.model, "", cell.image_set, name, "", *_numbers(figure(cell, name)), count]
        for label, iou in zip(report.classes, cell.figures.per_class, strict=True):
            yield [cell.model, "", cell.image_set, "iou", label, *_numbers(iou), count]
    for one in (*report.changes, *report.leads):
        count = report.images[one.image_set]
        yield [one.model, one.other, one.image_set, "dataset_miou", "", *_numbers(one.estimate), count]


def _numbers(found: Estimate) -> list[str | float]:
    return ["" if math.isnan(n) else n for n in (found.value, found.low, found.high)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
