"""What M is chosen from, in a round and beforehand: area windows, scores of the pool, and a preview."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mad_backend.competition import StoredPair, find_selection, little_choice
from mad_backend.core.records import ModelVersion
from mad_backend.core.selection import Selection, Window, area_windows
from mad_backend.errors import MadError
from training.leaks import quarantined
from training.project import Project


def selection_windows(project: Project) -> dict[int, Window]:
    """[p_k, q_k] from the masks of S(0), or from settings where they are given (method.md section 2)."""
    windows = area_windows((item.truth.read() for item in project.s0), project.labels)
    for name, (low, high) in project.settings.selection.windows.items():
        windows[project.labels.id_of(name)] = Window(low, high, 0)
    return windows


def stored_pairs(project: Project, target: ModelVersion) -> dict[str, StoredPair]:
    """What was found of version `target` and every competing model, by name; loads no model."""
    scores, key = project.scores, project.target_key(target)
    return {name: StoredPair(scores, key, own) for name, own in project.competitor_keys().items()}


@dataclass(frozen=True)
class LeftOut:
    """How many images may not be chosen: of an earlier S or T, like a test image, vetoed, no longer in the pool."""

    spent: int
    quarantined: int
    vetoed: int
    absent: int


@dataclass(frozen=True)
class Preview:
    """What M of `target` would be now; `windows` by class id, `class_names` too."""

    target: str
    selection: Selection
    windows: Mapping[int, Window]
    class_names: Mapping[int, str]
    left_out: LeftOut
    little_choice: str | None


def preview_selection(project: Project, target: ModelVersion) -> Preview:
    """What M would be if a round of `target` chose it now; records nothing and loads no model.

    Raises MadError when nothing of the pool was scanned with `target`.
    """
    pairs = stored_pairs(project, target)
    if not any(True for pair in pairs.values() for _ in pair):
        raise MadError(
            f"nothing of the pool has been scanned with {target.version} yet; run `mad scan` first"
        )
    spent, vetoed = project.store.choices.spent(), project.store.choices.vetoed()
    alike = {twin.image_id for twin in quarantined(project, project.store.rounds.next_number())} - spent
    absent = np.concatenate([pair.scores.absent(pair.target, pair.competitor) for pair in pairs.values()])
    windows = selection_windows(project)
    selection = find_selection(pairs, windows, project.settings.selection, spent | alike)
    return Preview(
        target.version,
        selection,
        windows,
        {class_id: project.labels.names[class_id] for class_id in windows},
        LeftOut(len(spent - vetoed), len(alike), len(vetoed), len(np.unique(absent))),
        little_choice(len(selection.candidates), project.settings.rating, project.settings.test_set),
    )


def window_origin(window: Window) -> str:
    """Where [p_k, q_k] comes from: quartiles over S(0), widened where those were too uncertain, or settings."""
    if window.is_widened:
        return "widened"
    return "quartiles" if window.images else "settings"


def preview_as_json(preview: Preview) -> dict[str, Any]:
    """Everything of a preview, classes by name."""
    names, selection = preview.class_names, preview.selection

    def by_name(cell: Any) -> dict[str, Any]:
        fields = asdict(cell)
        return {"class": names[fields.pop("class_id")], **fields}

    return {
        "target": preview.target,
        "n3": selection.n3,
        "size": len(selection.candidates),
        "images": dict(selection.images),
        "left_out": asdict(preview.left_out),
        "windows": {
            names[k]: {"low": w.low, "high": w.high, "images": w.images, "origin": window_origin(w)}
            for k, w in preview.windows.items()
        },
        "cells": [{**by_name(cell), "short": cell.chosen < selection.n3} for cell in selection.cells],
        "selected": [
            {"image_id": c.image_id, "provenance": [by_name(p) for p in c.provenance]}
            for c in selection.candidates
        ],
    }
