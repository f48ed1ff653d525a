"""What the gate decided in each round, with all its figures, kept for `mad report`."""

import json
from dataclasses import asdict
from pathlib import Path

from training.project import Project
from training.promotion import Decision
from training.report_files import as_json, reports_folder, write_text


def write_decision(project: Project, number: int, decision: Decision) -> Path:
    """Writes the gate's decision of a round with all its figures as JSON into the workspace and returns its place.

    Images of the failure suite come with where they lie.
    """
    figures = {"round": number, "promote": decision.promote, "reason": decision.reason, **asdict(decision)}
    figures["settings"] = project.settings.promotion.model_dump(mode="json")
    for image in figures["suite"]:
        image["path"] = project.pool[image["image_id"]].path
    path = _path(project, number)
    write_text(path, as_json(figures))
    return path


def last_decision(project: Project) -> list[str]:
    """What the gate decided last, in lines, and what the stop rule said then; empty before the first."""
    for found in reversed(project.store.rounds.all()):
        if found.outcome:
            return decision_lines(project, found.number, found.outcome, found.stop)
    return []


def decision_lines(project: Project, number: int, outcome: str, stop: str | None) -> list[str]:
    """A round's outcome, every image that would have broken again, with where it lies, and why to stop, if so."""
    path = _path(project, number)
    lines = [
        f"round {number}, {line}" if not n else f"  {line}" for n, line in enumerate(outcome.splitlines())
    ]
    suite = json.loads(path.read_text(encoding="utf-8"))["suite"] if path.exists() else []
    broken = [
        f"  broke again: {i['image_id']} of {i['image_set']}, {_two(i['failed'])} when found, "
        f"{_two(i['level'])} by {i['fixed_by']}, {_two(i['now'])} now: {i['path']}"
        for i in suite
        if i["is_broken"]
    ]
    return [*lines, *broken, *([f"stop rule, when round {number} ended: {stop}"] if stop else [])]


def _path(project: Project, number: int) -> Path:
    return reports_folder(project) / f"round-{number:03d}.json"


def _two(miou: float | None) -> str:
    return "-" if miou is None else f"{miou:.2f}"
