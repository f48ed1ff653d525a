"""Who may fight a duel, by name, and which images of the pool they or their choosers have seen."""

import re
from collections.abc import Sequence
from pathlib import Path

from mad_backend.core.looks import find_twins
from mad_backend.engines.base import ModelRecipe
from mad_backend.errors import CorruptFileError, SettingsError
from mad_backend.targets import target_settings
from training.leaks import images_learnt, known_contents, read_contents
from training.project import Project


def find_models(project: Project, names: Sequence[str]) -> list[ModelRecipe]:
    """Versions of the target, competing models, or "path=..." for weights of the target's kind, in this order.

    Raises SettingsError for a name that is none of these, and where two names are called the same.
    """
    found = [_find(project, name) for name in names]
    called = [recipe.name for recipe in found]
    if len(set(called)) < len(called):
        raise SettingsError(
            f"{' and '.join(names)} are both called {called[0]}; name two models, and folders of weights differently"
        )
    return found


def images_seen(project: Project, models: Sequence[ModelRecipe]) -> set[str]:
    """Images of the pool that must not be in a duel of `models`, which have predicted it.

    Those of any S, on which versions were trained, and what the records of the models' weights name beside; those of
    any T, by which versions were chosen, and of earlier duels; those of the M of a round that goes on, which may become
    either; vetoed ones; and twins of images of S(0), S and T(0). Unlabelled images that a distillation looked at are
    not barred: that may be the whole pool. Raises ImageError, and CorruptFileError for a record that cannot be read.
    """
    store, pool = project.store, sorted(project.pool)
    seen = store.choices.spent().union(*(_trained_on(project, model) for model in models))
    latest = store.rounds.latest()
    number = latest.number if latest else 0
    if latest and not latest.state.is_over:
        seen |= {candidate.image_id for candidate in store.choices.selection(number)}
    learnt = read_contents(project, [*images_learnt(project, number), *(item.image for item in project.t0)])
    contents = known_contents(project, pool)
    return seen | {
        t.image_id for t in find_twins(contents, learnt, project.settings.test_set.near_duplicates)
    }


def _find(project: Project, name: str) -> ModelRecipe:
    models, versions = project.settings.models, {v.version: v for v in project.store.versions.all()}
    if not versions:
        first = project.current_target()
        versions = {first.version: first}
    if name in versions:
        settings = target_settings(versions[name], project.settings)
    elif name in models.competing:
        settings = models.competing[name]
    elif name.startswith("path="):
        name, path = _weights(Path(name.removeprefix("path=")).absolute())
        settings = models.target.model_copy(update={"path": path})
    else:
        known = ", ".join([*versions, *sorted(models.competing)])
        raise SettingsError(
            f'there is no model "{name}"; known: {known}, or path=WEIGHTS of the target\'s kind'
        )
    return ModelRecipe(name, settings, project.labels, project.grid)


def _weights(path: Path) -> tuple[str, Path]:
    """(what they are called, what the target's `path` must be); a folder of `mad finetune` tells both."""
    folder = _record_folder(path)
    if folder:
        from training.finetuning.record import read_meta  # late: it imports torch

        meta = read_meta(folder)
        return str(meta["version"]), folder / meta["path"] if path == folder else path
    return re.sub(r"[^A-Za-z0-9_.@+-]+", "-", path.name if path.is_dir() else path.stem), path


def _trained_on(project: Project, model: ModelRecipe) -> set[str]:
    """Images of the pool that the record beside a model's weights names as labelled, by id or as a file."""
    folder = _record_folder(model.settings.path)
    if folder is None:
        return set()
    from training.finetuning.manifest import Use, decode  # late, as above
    from training.finetuning.record import DATA, read_meta

    root = Path(read_meta(folder)["data"]["root"])
    try:
        lines = decode((folder / DATA).read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptFileError(
            f"{folder / DATA}, what {model.name} was trained on, cannot be read: {error}; restore it from a copy"
        ) from error
    labelled = [line for line in lines if line.use is not Use.UNLABELLED]
    ids, files = {line.image_id for line in labelled}, {str(root / line.image) for line in labelled}
    return {i for i, image in project.pool.items() if i in ids or image.path in files}


def _record_folder(path: Path | None) -> Path | None:
    """The folder of a fine-tuning's record that weights at `path` belong to, if there is one."""
    if path is None:
        return None
    files = ("meta.json", "data.jsonl")
    return next((f for f in (path, path.parent) if all((f / name).is_file() for name in files)), None)
