"""Starting a round: everything that can be wrong is looked for before any work begins."""

import logging
from datetime import UTC, datetime

from mad_backend.core.rounds import Round
from mad_backend.errors import MadError, ModelError, SettingsError, StoreError
from mad_backend.models.registry import TRAINABLE, is_trainable, load_model
from sync.client import LabelStudioClient
from sync.pool import refresh_mirrors
from training.leaks import check_benchmark
from training.project import Project

log = logging.getLogger(__name__)


def start_round(project: Project, client: LabelStudioClient | None) -> Round:
    """Creates the next round; raises a MadError naming what is wrong, or StoreError while a round is under way.

    `client` is None where an oracle stands in for people.
    """
    latest = project.store.rounds.latest()
    if latest is not None and not latest.state.is_over:
        raise StoreError(
            f"round {latest.number} is {latest.state}; finish it first, or end it with `mad cancel {latest.number}`"
        )
    check_project(project, client)
    now = datetime.now(UTC)
    name = f"{project.settings.models.name}@0"
    project.store.versions.record(name, 0, None, now)
    if project.store.versions.promoted() is None:
        project.store.versions.promote(name, now, "the target as it came")
    target = project.store.versions.promoted() or project.store.versions.get(name)
    number = project.store.rounds.next_number()
    if not project.store.rounds.create(number, project.settings.seed * 1000 + number, now, target.version):
        raise StoreError(f"round {number} was started by another process at the same moment")
    log.info("round %d starts from %s", number, target.version)
    return project.store.rounds.get(number)


def check_project(project: Project, client: LabelStudioClient | None) -> None:
    """Raises PoolError, ImageError, ModelError, MissingRuntimeError, SettingsError or LabelStudioError."""
    if client is not None:
        refresh_mirrors(project.settings, client)
    project.forget_images()
    project.check_images()
    if len(project.s0) == 0:
        raise MadError("S(0) is empty; name the original training images under s0")
    check_benchmark(project)
    for name in (*project.settings.selection.windows, *project.settings.evaluation.classes):
        project.labels.id_of(name)
    kind = project.settings.models.target.kind
    if not is_trainable(kind):
        raise ModelError(
            f'the target is of kind "{kind}"; only {", ".join(sorted(TRAINABLE))}, or a network of your own as '
            '"package.module:Class", can be fine-tuned'
        )
    if client is not None:
        client.current_user()
        check_people(project, client)
    check_models(project)


def check_people(project: Project, client: LabelStudioClient) -> None:
    """Raises SettingsError where the cross-check wants somebody beside the author and there is nobody."""
    people = sorted(client.people().values())
    if project.settings.check.enabled and len(people) < 2:
        raise SettingsError(
            f"check.enabled wants two people or more, since nobody checks a label map of their own; {client.url} has "
            f"{', '.join(people) or 'nobody'}: invite somebody there, or set check.enabled: false"
        )


def check_models(project: Project) -> None:
    """Loads every model once; raises ModelError when one cannot be loaded, or when nobody knows a class."""
    promoted = project.store.versions.promoted()
    target = project.target(promoted) if promoted else None
    if target is None:
        target = load_model(
            f"{project.settings.models.name}@0", project.settings.models.target, project.labels, project.grid
        )
    models = [target, *project.competitors()]
    known = set().union(*(model.class_ids for model in models))
    unknown = [project.labels.names[k] for k in project.labels.foreground_ids if k not in known]
    if unknown:
        raise ModelError(
            f'no model knows class {", ".join(unknown)} of label set "{project.labels.name}", so no image of it can '
            "ever be chosen; map a model's class to it under models.<name>.classes, or take it out of the label set"
        )
