"""Sends images to people, whatever for: keyed, so that it may be repeated after any interruption.

The server is asked what it has, and only what is missing is sent.
"""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image

from mad_backend.core.labels import LabelMap, RgbImage
from mad_backend.core.records import RemoteProject
from mad_backend.errors import LabelStudioError
from mad_backend.store.store import Store
from sync.client import Json, LabelStudioClient, TaskState
from sync.pictures import PictureHost

log = logging.getLogger(__name__)

_CHUNK: Final = 25
"""Tasks per import: a request of about a second, and what has to be rendered again after an interruption."""
_JPEG_QUALITY: Final = 95
_SETTLE_ROUNDS: Final = 3


@dataclass(frozen=True)
class PushItem:
    """One image to send; `load` gives photo and target's label map, both at the photo's size, when needed.

    `address` is where the photo itself lies (path, s3://..., https://...); "" if unknown.
    """

    image_id: str
    load: Callable[[], tuple[RgbImage, LabelMap]]
    address: str = ""


Report = Callable[[int, int], None]
"""Called with (done, total)."""

Drawn: TypeAlias = tuple[Mapping[str, bytes], Callable[[Mapping[str, str]], Json]]
"""JPEG files by name, and what makes the task once their addresses are known."""
Draw: TypeAlias = Callable[[str, PushItem], Drawn]
"""(item key, item) -> what to send."""


def push_items(
    client: LabelStudioClient,
    store: Store,
    number: int,
    project: RemoteProject,
    items: Sequence[PushItem],
    draw: Draw,
    report: Report,
    host: PictureHost,
) -> None:
    """Sends what is missing of `items`, and records the tasks; raises LabelStudioError. `draw` makes a task's parts."""
    keys = {store.remote.item_key(number, project.role, item.image_id): item for item in items}
    for _ in range(_SETTLE_ROUNDS):
        present = _tasks_by_item(client, project.project_id)
        missing = [key for key in keys if key not in present]
        report(len(keys) - len(missing), len(keys))
        if not missing:
            break
        for start in range(0, len(missing), _CHUNK):
            chunk = {key: keys[key] for key in missing[start : start + _CHUNK]}
            _send(client, project.project_id, chunk, draw, host)
            report(len(keys) - len(missing) + start + len(chunk), len(keys))
    else:
        raise LabelStudioError(
            f"project {project.project_id}: {len(missing)} of {len(keys)} tasks are not there after "
            f"{_SETTLE_ROUNDS} imports; Label Studio's log tells why"
        )
    tasks = {keys[key].image_id: _keep_one(client, present[key]) for key in keys}
    store.remote.record_tasks(number, project.role, tasks)
    log.info("round %d: %s project %d has %d tasks", number, project.role, project.project_id, len(tasks))


def _send(
    client: LabelStudioClient, project_id: int, chunk: Mapping[str, PushItem], draw: Draw, host: PictureHost
) -> None:
    """Places the pictures that are not there, then imports; a failed import that arrived counts."""
    drawn = [draw(key, item) for key, item in chunk.items()]
    files = {name: content for wanted, _ in drawn for name, content in wanted.items()}
    there = host.place(project_id, files)
    try:
        client.import_tasks(project_id, [task(there) for _, task in drawn])
    except LabelStudioError:
        # The answer comes after the commit: a timeout can hide a success.
        if not set(chunk) <= set(_tasks_by_item(client, project_id)):
            raise
        log.info("project %d: an import without an answer had arrived", project_id)


def _tasks_by_item(client: LabelStudioClient, project_id: int) -> dict[str, list[TaskState]]:
    """Item key -> its tasks, oldest first; more than one only after an interrupted import."""
    found: dict[str, list[TaskState]] = {}
    for task in client.tasks(project_id):
        if task.item is not None:
            found.setdefault(task.item, []).append(task)
    return found


def _keep_one(client: LabelStudioClient, tasks: Sequence[TaskState]) -> int:
    """Id of the task to keep: the oldest that has annotations, else the oldest; deletes untouched others.

    Twins arise when a killed push is repeated while the server still works on its last request.
    """
    kept = min(tasks, key=lambda task: (task.annotations == 0, task.task_id))
    for task in tasks:
        if task is kept:
            continue
        if task.annotations:
            log.warning("task %d is a twin of task %d, both have annotations", task.task_id, kept.task_id)
        else:
            client.delete_task(task.task_id)
    return kept.task_id


def jpeg(rgb: RgbImage) -> bytes:
    """Encoded from pixels, so that no EXIF entry turns it; colours at full resolution for crisp borders."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()
