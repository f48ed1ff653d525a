"""Sends images to people: the rating project from M, the segmentation project from S and T.

Everything is keyed and may be repeated after any interruption: the server is asked what it has, and only
what is missing is sent.
"""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image

from mad_backend.core.drawing import legend, overlay
from mad_backend.core.labels import LabelMap, LabelSet, RgbImage
from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.errors import LabelStudioError
from mad_backend.label_studio.label_config import legend_html, rating_config, segmentation_config
from mad_backend.label_studio.results import regions_of
from mad_backend.store.store import Store
from sync.client import Json, LabelStudioClient, TaskState
from sync.projects import ensure_picture_project, ensure_project

log = logging.getLogger(__name__)

_CHUNK: Final = 25
"""Tasks per import: a request of about a second, and what has to be rendered again after an interruption."""
_JPEG_QUALITY: Final = 95
_SETTLE_ROUNDS: Final = 3

_RATING_HELP: Final = """\
<p>How well does the coloured segmentation on the right describe the photo on the left?</p>
<p><b>5</b> excellent &nbsp; <b>4</b> good &nbsp; <b>3</b> fair &nbsp; <b>2</b> poor &nbsp; <b>1</b> bad</p>
<p>Judge both the names of the objects (see the legend) and their outlines; what is not coloured is
background. Press <b>0</b> if the photo does not belong here at all (not a photo, or nothing of the listed
kinds in it).</p>
<p>Press the digit, then submit. Rate what you see; nobody sees your answers while rating.</p>
"""
_CORRECT: Final = """\
<p>Correct the painted masks until every object has its right label and outline; begin anew where that is
faster. What you paint wins over the suggestion beneath.</p>
<p>To paint on top of a mask, click the right object in the list of regions first, then paint: it grows. Begin a
new object outside the masks, or erase a spot to begin on; a stroke begun on a mask is not taken.</p>
"""
_SEGMENTATION_HELP: Final = (
    _CORRECT
    + """\
<p>Pixels without a label count as background. If there is nothing to label, paint one dot of background. Use
<b>void</b> for pixels that nobody can decide.</p>
"""
)
_SEGMENTATION_HELP_ALL: Final = (
    _CORRECT
    + """\
<p>Every pixel should have a label: pixels without one are left out, as are those you paint as <b>void</b>.</p>
"""
)


@dataclass(frozen=True)
class PushItem:
    """One image to send; `load` gives photo and target's label map, both at the photo's size, when needed."""

    image_id: str
    load: Callable[[], tuple[RgbImage, LabelMap]]


Report = Callable[[int, int], None]
"""Called with (done, total)."""

_Drawn: TypeAlias = tuple[Mapping[str, bytes], Callable[[Mapping[str, str]], Json]]
"""JPEG files by name, and what makes the task once their addresses are known."""
_Draw: TypeAlias = Callable[[str, PushItem], _Drawn]
"""(item key, item) -> what to send."""


def push_rating(
    client: LabelStudioClient,
    store: Store,
    number: int,
    title: str,
    labels: LabelSet,
    items: Sequence[PushItem],
    *,
    raters: int = 3,
    report: Report,
) -> RemoteProject:
    """The rating project of the round, a task per item: photo, overlay, legend, and nothing that tells.

    Raises LabelStudioError; whatever had been sent by then stays and is not sent again.
    """
    settings = {
        "description": "Rate each segmentation from 1 (bad) to 5 (excellent).",
        "label_config": rating_config(),
        "maximum_annotations": raters,
        "enable_empty_annotation": False,
        "show_collab_predictions": False,
        "show_skip_button": False,
        "sampling": "Uniform sampling",
        "expert_instruction": _RATING_HELP,
        "show_instruction": True,
    }
    project = ensure_project(client, store, number, ProjectRole.RATING, title, settings)

    def draw(key: str, item: PushItem) -> _Drawn:
        rgb, label_map = item.load()
        photo, drawn = f"{key}-a.jpg", f"{key}-b.jpg"
        text = legend_html(legend(label_map, labels))
        files = {photo: _jpeg(rgb), drawn: _jpeg(overlay(rgb, label_map, labels))}
        return files, lambda at: {
            "data": {"image": at[photo], "overlay": at[drawn], "legend": text, "item": key}
        }

    shelf = ensure_picture_project(client, store, number, title)
    _push(client, store, number, project, items, draw, report, shelf)
    return project


def push_segmentation(
    client: LabelStudioClient,
    store: Store,
    number: int,
    title: str,
    labels: LabelSet,
    items: Sequence[PushItem],
    *,
    model_version: str,
    report: Report,
) -> RemoteProject:
    """The segmentation project of the round, a task per item, pre-annotated with the target's label map.

    The order is random, so that the test set cannot be told from the failures. Raises LabelStudioError.
    """
    settings = {
        "description": "Correct the label of every pixel.",
        "label_config": segmentation_config(labels),
        "maximum_annotations": 1,
        "enable_empty_annotation": False,
        "show_collab_predictions": True,
        "sampling": "Uniform sampling",
        "expert_instruction": _SEGMENTATION_HELP if labels.has_background else _SEGMENTATION_HELP_ALL,
        "show_instruction": True,
    }
    project = ensure_project(client, store, number, ProjectRole.SEGMENTATION, title, settings)

    def draw(key: str, item: PushItem) -> _Drawn:
        rgb, label_map = item.load()
        photo = f"{key}-a.jpg"
        prediction = {"model_version": model_version, "result": regions_of(label_map, labels)}
        return {photo: _jpeg(rgb)}, lambda at: {
            "data": {"image": at[photo], "item": key},
            "predictions": [prediction],
        }

    _push(client, store, number, project, items, draw, report, project.project_id)
    there = client.project(project.project_id)
    # Any other value, and annotators get an empty canvas without a warning; refused while no task has it.
    if items and there and there.model_version != model_version:
        client.patch_project(project.project_id, model_version=model_version)
    return project


def _push(
    client: LabelStudioClient,
    store: Store,
    number: int,
    project: RemoteProject,
    items: Sequence[PushItem],
    draw: _Draw,
    report: Report,
    shelf: int,
) -> None:
    """`shelf` is the project that holds the pictures."""
    keys = {store.remote.item_key(number, project.role, item.image_id): item for item in items}
    for _ in range(_SETTLE_ROUNDS):
        present = _tasks_by_item(client, project.project_id)
        missing = [key for key in keys if key not in present]
        report(len(keys) - len(missing), len(keys))
        if not missing:
            break
        for start in range(0, len(missing), _CHUNK):
            chunk = {key: keys[key] for key in missing[start : start + _CHUNK]}
            _send(client, project.project_id, chunk, draw, shelf)
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
    client: LabelStudioClient, project_id: int, chunk: Mapping[str, PushItem], draw: _Draw, shelf: int
) -> None:
    """Uploads the pictures that are not there, then imports; a failed import that arrived counts."""
    drawn = [draw(key, item) for key, item in chunk.items()]
    files = {name: content for wanted, _ in drawn for name, content in wanted.items()}
    there = client.uploads(shelf)
    absent = {name: content for name, content in files.items() if name not in there}
    if absent:
        client.upload(shelf, absent)
        there = client.uploads(shelf)
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


def _jpeg(rgb: RgbImage) -> bytes:
    """Encoded from pixels, so that no EXIF entry turns it; colours at full resolution for crisp borders."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()
