"""Finds or makes the Label Studio project of a round, and refuses one whose labels somebody changed."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.errors import LabelFormatError, LabelStudioError
from mad_backend.label_studio.label_config import picture_config, signature
from mad_backend.store.store import Store
from sync.client import LabelStudioClient, Project
from sync.patience import RESTART, Patience

log = logging.getLogger(__name__)

_TITLE_LIMIT: Final = 50
_PICTURES: Final = " (pictures)"


def ensure_project(
    client: LabelStudioClient,
    store: Store,
    number: int,
    role: ProjectRole,
    title: str,
    settings: Mapping[str, Any],
    seat: str = "",
) -> RemoteProject:
    """The project on record, else the one found by its key, else a new one; recorded before it is returned.

    The key stands in the description, so that a project whose creation was not recorded (kill -9, a timeout)
    is found again. `settings` are Label Studio's own names and are used at creation only. `seat` is whose the
    project is, where each rater has one. Raises LabelStudioError if the label configuration is no longer the
    recorded one.
    """
    recorded = store.remote.project(number, role, seat)
    there = client.project(recorded.project_id) if recorded else None
    key = "mad-" + store.remote.item_key(number, role, "", seat)
    found = client.projects_with(key)
    if len(found) > 1:
        ids = ", ".join(str(p.project_id) for p in found)
        log.warning("projects %s have one key; delete those of them without tasks", ids)
    if recorded and there:
        check_labels(there, recorded)
        return recorded
    if found:
        there = found[0]
    else:
        description = f"{settings.get('description', '')} Keep this key, by it the project is found: {key}"
        there = _create(client, key, {**settings, "title": title, "description": description.strip()})
        log.info("round %d: made %s project %d", number, role, there.project_id)
    project = RemoteProject(role, there.project_id, there.title, signature(settings["label_config"]), seat)
    check_labels(there, project)
    store.remote.record_project(number, project)
    return project


def ensure_picture_project(client: LabelStudioClient, store: Store, number: int, title: str) -> int:
    """Id of the project that holds the pictures of the rating project, found by its key or made.

    Label Studio 1.23.2 takes picture files only into projects whose tasks have one variable ("more than one
    data key", 400), and rating tasks have three. Pictures may be shown in any project of the same server.
    """
    key = "mad-" + store.remote.item_key(number, ProjectRole.RATING, "\npictures")
    found = client.projects_with(key)
    if found:
        return found[0].project_id
    settings = {
        "title": f"{title[: _TITLE_LIMIT - len(_PICTURES)]}{_PICTURES}",
        "description": f"Nothing to do here: holds the pictures shown in {title}, which need it. {key}",
        "label_config": picture_config(),
    }
    return _create(client, key, settings).project_id


def _create(client: LabelStudioClient, key: str, settings: Mapping[str, Any]) -> Project:
    """A new project, or an older one that was asked for without an answer and came up meanwhile."""
    patience, made, asked = Patience(RESTART, client.backoff_s), None, 0
    while True:
        try:
            if found := client.projects_with(key):
                _drop_twins(client, found[1 : 1 + asked])
                return found[0]
            if made is not None:  # and not listed yet
                return made
            asked += 1
            made = client.create_project(**settings)
        except LabelStudioError as error:
            patience.wait(f'creating project "{settings.get("title")}"', error)


def _drop_twins(client: LabelStudioClient, twins: Sequence[Project]) -> None:
    """Deletes what was made too much, but nothing that has tasks."""
    for twin in twins:
        there = client.project(twin.project_id)
        if there is not None and not there.tasks:
            client.delete_project(twin.project_id)


def check_labels(there: Project, recorded: RemoteProject) -> None:
    """Raises LabelStudioError if the label configuration no longer means what it meant at creation."""
    try:
        same = signature(there.label_config) == recorded.signature
    except LabelFormatError:
        same = False
    if not same:
        raise LabelStudioError(
            f'project {there.project_id} "{there.title}": its labelling interface was changed in Label '
            "Studio, so answers could be misread; undo the change under Settings > Labeling Interface, or delete the "
            "project and push again"
        )
