"""Masks of any project as a source of S(0): where they go, and what `mad pull --project` says of them."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from mad_backend.core.labels import LabelSet
from mad_backend.errors import PoolError, SettingsError
from mad_backend.label_studio.any_project import LabelMapping
from mad_backend.settings import Settings
from sync.client import LabelStudioClient
from sync.foreign import ForeignReport, pull_foreign
from sync.pool import Report

_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]+")
_SHOWN: Final = 20


def pull_for_training(
    client: LabelStudioClient,
    settings: Settings,
    labels: LabelSet,
    project_id: int,
    name: str | None = None,
    maps: Sequence[str] = (),
    field: str | None = None,
    report: Report = lambda _done, _total: None,
) -> ForeignReport:
    """Brings workspace/extra/<name> up to date; `name` is "project-<id>" if None, `maps` texts such as "Hund=dog".

    Raises SettingsError for what cannot be meant, PoolError for a project of T(0), and as `pull_foreign`.
    """
    name = name or f"project-{project_id}"
    if not _NAME.fullmatch(name):
        raise SettingsError(f'--name "{name}": wanted letters, digits and - _ . only')
    if any(s.label_studio and s.label_studio.project == project_id for s in settings.t0):
        raise PoolError(
            f"project {project_id} is a source of t0, on which models are measured; masks of its images may not be "
            "trained on"
        )
    options = next((s.storage_options for s in settings.s0 if s.name == name), {})
    mapping = LabelMapping(labels, _pairs(maps))
    folder = settings.workspace / "extra" / name
    return pull_foreign(
        client, project_id, mapping, folder, image_field=field, options=options, report=report
    )


def tell(found: ForeignReport, settings: Settings, config: Path, console: Console) -> None:
    """What was taken, what was left out and why, and the lines that make it a source."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    project = found.project
    say(
        f'project {project.project_id} "{project.title}": {found.masks} masks, {found.made} of them new or changed; '
        f"{found.unlabelled} tasks are not labelled yet"
    )
    if found.left_out:
        say(f"{len(found.left_out)} labelled tasks are left out:")
        _list(say, [f"task {task_id}: {reason}" for task_id, reason in found.left_out.items()])
    if found.notes:
        say(f"{len(found.notes)} masks are to be looked at:")
        _list(say, [f"task {task_id}: {'; '.join(notes)}" for task_id, notes in found.notes.items()])
    if any(s.label_studio and s.label_studio.project == project.project_id for s in settings.pool):
        say(
            "its images are in the pool too: once they are training data, T may hold images that were trained on; give "
            "the pool a view without the labelled ones"
        )
    if not found.masks:
        say("nothing to train on yet; come back when there are masks")
    elif any(source.manifest == found.manifest for source in settings.s0):
        say("the source stands under s0: already; the next training takes it as it is now")
    else:
        say(f"to train on it, add under s0: in {config}")
        say(f"  - {{name: {found.manifest.parent.name}, manifest: {_as_yaml(found.manifest, config)}}}")


def _pairs(maps: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in maps:
        label, _, name = (part.strip() for part in text.rpartition("="))
        if not (label and name):
            raise SettingsError(f'--map "{text}": wanted "their label=our class", e.g. --map "Hund=dog"')
        if pairs.setdefault(label, name) != name:
            raise SettingsError(f'--map: "{label}" is both {pairs[label]} and {name}; give one')
    return pairs


def _list(say: Callable[[str], None], lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        say(f"  {line}")
    if len(lines) > _SHOWN:
        say(f"  and {len(lines) - _SHOWN} more")


def _as_yaml(manifest: Path, config: Path) -> str:
    """Relative to the settings file where it lies below: so are paths in it."""
    home = config.parent.resolve()
    return json.dumps(str(manifest.relative_to(home) if manifest.is_relative_to(home) else manifest))
