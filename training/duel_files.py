"""What a duel came to, as files in its folder, and as JSON for other programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mad_backend.core.duel import Duel
from mad_backend.pool.sources import LabelledImage
from training.duel import DuelReport, duel_folder
from training.duel_page import duel_page, verdict
from training.duel_people import people_labels
from training.project import Project
from training.report_files import as_json, write_text


def write_duel(project: Project, duel: Duel, labelled: Sequence[LabelledImage], report: DuelReport) -> Path:
    """Writes duel.json and duel.html, in place of those of an earlier run, and returns the place of the page."""
    folder = duel_folder(project, duel)
    page = folder / "duel.html"
    write_text(page, duel_page(project, duel, labelled, report))
    write_text(folder / "duel.json", as_json(report_fields(report)))
    return page


def report_fields(report: DuelReport) -> dict[str, Any]:
    """Everything of a report, and its verdict in words."""
    return {"verdict": verdict(report), **asdict(report)}


def list_duels(project: Project) -> list[dict[str, Any]]:
    """Every duel, oldest first: who, how far people are, and what it came to when it was last told (else None)."""
    return [
        {
            "first": duel.first.name,
            "second": duel.second.name,
            "created_at": duel.created_at.isoformat(timespec="seconds"),
            "budget": duel.budget,
            "images": [image.image_id for image in duel.images],
            "labelled": len(people_labels(project, duel)),
            "result": _last_result(project, duel),
        }
        for duel in project.store.duels.all()
    ]


def _last_result(project: Project, duel: Duel) -> dict[str, Any] | None:
    path = duel_folder(project, duel) / "duel.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
