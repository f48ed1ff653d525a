"""`mad connect`: gives any project of Label Studio the promoted target model, or takes it away again."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from mad_backend.core.drawing import VOID_NAME
from mad_backend.core.labels import VOID, LabelSet
from mad_backend.core.records import ProjectRole
from mad_backend.errors import LabelFormatError, LabelStudioError, PoolError, SettingsError
from mad_backend.label_studio.answers import AnswerInterface, answer_interface
from mad_backend.settings import Secrets, Settings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient, Project
from sync.connection import connect
from sync.ml_backends import (
    Backend,
    Served,
    backends,
    delete_backend,
    ensure_backend,
    ours_of,
    served_at,
    stored_predictions,
)
from sync.shapes import read_project
from sync.webhooks import delete_webhook, ensure_webhook, webhook_address, webhooks

log = logging.getLogger(__name__)

_LIVE: Final = (
    "connected live, they would start from what `mad serve` serves when they open a task, and from an empty canvas "
    'while it is down; say --replace for that, or --keep to have it answer clicks and "Retrieve predictions" only'
)
_PRELABELING: Final = "Settings > Annotation > Prelabeling"


def connect_and_show(
    settings: Settings,
    secrets: Secrets,
    labels: LabelSet,
    project_id: int,
    url: str | None,
    title: str,
    console: Console,
    *,
    is_interactive: bool,
    replace: bool | None,
) -> None:
    """`mad connect`; raises what `connect_project` raises."""
    client, served = connect(settings, secrets), served_at(settings, secrets, url)
    with closing(Store(settings.database_url)) as store:
        made = connect_project(
            client,
            store,
            settings,
            secrets,
            labels,
            project_id,
            served,
            title,
            is_interactive=is_interactive,
            replace=replace,
        )
        promoted = store.versions.promoted()
    show_connection(made, labels, promoted.version if promoted else None, client.url, console)


def remove_and_show(
    settings: Settings, secrets: Secrets, project_id: int, url: str | None, title: str, console: Console
) -> None:
    """`mad connect --remove`; raises what `disconnect_project` raises."""
    client = connect(settings, secrets)
    with closing(Store(settings.database_url)) as store:
        told = disconnect_project(
            client, store, settings, project_id, url or settings.serve.public_url, title
        )
    for line in told:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Connection:
    """What `connect_project` made; `is_live`: annotators start from what the backend answers."""

    project: Project
    backend: Backend
    interface: AnswerInterface
    is_live: bool


@dataclass(frozen=True)
class _Found:
    """A project before anything is changed; `prelabels` is Label Studio's show_collab_predictions."""

    project: Project
    prelabels: bool
    role: ProjectRole | None

    @property
    def name(self) -> str:
        return f'project {self.project.project_id} "{self.project.title}"'


def connect_project(
    client: LabelStudioClient,
    store: Store,
    settings: Settings,
    secrets: Secrets,
    labels: LabelSet,
    project_id: int,
    served: Served,
    title: str,
    *,
    is_interactive: bool = False,
    replace: bool | None = None,
) -> Connection:
    """Connects `mad serve` to a project, ours or another; again: puts the connection right.

    Annotators start from its answers then, unless they started from something else before: `replace` says whether they
    shall (True) or not (False), None refuses. Nothing is changed before the label configuration is known to be one that
    can be answered. Raises LabelFormatError if it is not, SettingsError, PoolError and LabelStudioError.
    """
    found = _found(client, store, project_id)
    if found.role in (ProjectRole.RATING, ProjectRole.CHECK):
        raise PoolError(
            f"{found.name} is the {found.role} project of a round, where people judge without help; connect its "
            "segmentation project, or one of your own"
        )
    try:
        interface = answer_interface(found.project.label_config, labels, settings.serve.labels)
    except LabelFormatError as error:
        raise LabelFormatError(f"{found.name}: {error}") from error
    there = backends(client, project_id)
    ours = ours_of(there, served.url, title)
    is_live = _is_to_be_live(found, {title, *(b.title for b in ours)}, replace)
    others = [backend for backend in there if backend not in ours]
    if is_live and others:
        raise SettingsError(
            f'{found.name} has the ML backend "{others[0].title}" at {others[0].url} too, and Label Studio asks '
            "the first one only; delete that one (Settings > Model), or say --keep"
        )
    backend = ensure_backend(client, project_id, served, title, is_interactive=is_interactive)
    if is_live:
        client.patch_project(project_id, model_version=title, show_collab_predictions=True)
    else:
        # Label Studio makes a backend live by itself where `model_version` is empty.
        client.patch_project(project_id, model_version=found.project.model_version)
    ensure_webhook(client, project_id, webhook_address(served.url), secrets.webhook_secret)
    log.info('project %d: "%s" at %s, live: %s', project_id, title, served.url, is_live)
    return Connection(found.project, backend, interface, is_live)


def disconnect_project(
    client: LabelStudioClient, store: Store, settings: Settings, project_id: int, url: str | None, title: str
) -> list[str]:
    """Takes our connections of a project away, with their webhooks, and says what annotators start from now.

    Predictions that Label Studio stored stay: those of the version that most tasks have are what they start from.
    """
    found = _found(client, store, project_id)
    ours = ours_of(backends(client, project_id), url, title)
    if not ours:
        at = f", nor one at {url}" if url else ""
        return [f'{found.name} has no ML backend "{title}"{at}; nothing was changed']
    for backend in ours:
        delete_backend(client, backend.backend_id)
    if found.role is None or not settings.label_studio.webhooks:
        addresses = {webhook_address(backend.url) for backend in ours}
        for hook in webhooks(client, project_id):
            if hook["url"] in addresses:
                delete_webhook(client, hook["id"])
    told = [f'{found.name}: removed the ML backend "{ours[0].title}" at {ours[0].url}']
    if found.project.model_version not in {backend.title for backend in ours}:
        return told
    counts = stored_predictions(client, project_id)
    if not counts:
        client.patch_project(project_id, model_version="")
        return [*told, "its annotators start from an empty canvas now"]
    kept = max(counts, key=lambda version: counts[version])
    client.patch_project(project_id, model_version=kept)
    now = f'its annotators start from the stored predictions of "{kept}" now ({counts[kept]})'
    return [*told, f"{now}; to choose others: {_PRELABELING}"]


def show_connection(
    made: Connection, labels: LabelSet, promoted: str | None, label_studio: str, console: Console
) -> None:
    """Which label stands for which class, what annotators start from, and what is still missing for that."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    project, backend, interface = made.project, made.backend, made.interface
    say(
        f'project {project.project_id} "{project.title}": connected to "{backend.title}" at {backend.url}, state '
        f"{backend.state}, version {backend.model_version or 'none'}"
    )
    table = Table("class", f"{interface.control} ({interface.kind})", title=f"image: data.{interface.field}")
    without = []
    for class_id, name in [*enumerate(labels.names), (VOID, VOID_NAME)]:
        label = interface.labels.get(class_id)
        if label is None:
            without.append(name)
        else:
            table.add_row(name, label)
    console.print(table)
    if without:
        say(
            f"without a label, so never painted: {', '.join(without)}; give a <Label> that name, or "
            'predicted_values="...", or set serve.labels'
        )
    _say_start(say, made, promoted, label_studio)


def _say_start(say: Callable[[str], None], made: Connection, promoted: str | None, label_studio: str) -> None:
    if not made.is_live:
        say(
            f'annotators start from "{made.project.model_version}" as before; the backend answers clicks and "Retrieve '
            'predictions"'
            if made.project.model_version
            else "annotators start from an empty canvas as before"
        )
    elif promoted is None:
        say("nothing is promoted yet, so tasks open empty until `mad new-round` has made the first version")
    else:
        say(
            f"annotators start from its answer, of the version that is promoted when they open a task: {promoted} now; "
            f"look at {label_studio}/projects/{made.project.project_id}/data?labeling=1"
        )


def _found(client: LabelStudioClient, store: Store, project_id: int) -> _Found:
    try:
        entry = client.get(f"/api/projects/{project_id}/", f"reading project {project_id}")
    except LabelStudioError as error:
        if error.status == 404:
            raise PoolError(f"{client.url} has no project {project_id} that this token may see") from error
        raise
    return _Found(read_project(entry), bool(entry["show_collab_predictions"]), _role(store, project_id))


def _role(store: Store, project_id: int) -> ProjectRole | None:
    """None: it is no project of ours."""
    for found in store.rounds.all():
        for role in ProjectRole:
            if any(p.project_id == project_id for p in store.remote.projects(found.number, role)):
                return role
    return None


def _is_to_be_live(found: _Found, titles: set[str], replace: bool | None) -> bool:
    """Raises SettingsError where that would change what annotators start from, and nobody said so."""
    current = found.project.model_version
    if replace is not None:
        return replace or current in titles
    if current in titles:
        return True
    if current:
        raise SettingsError(f'{found.name}: annotators start from its predictions of "{current}"; {_LIVE}')
    if not found.prelabels:
        raise SettingsError(
            f"{found.name}: annotators start from an empty canvas, since prelabeling is switched off; {_LIVE}"
        )
    return True
