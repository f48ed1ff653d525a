"""The cross-check project: somebody other than its author looks at every drawn label map (Sec. 4.1)."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mad_backend.core.checks import current_checks, dropped_images
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import HumanMask, ProjectRole, RemoteProject
from mad_backend.errors import CorruptFileError
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.label_config import check_config
from mad_backend.pool.images import read_label_map
from mad_backend.store.store import Store
from sync.client import Json, LabelStudioClient
from sync.pictures import PictureHost, UploadedPictures
from sync.projects import ensure_project
from sync.push import Drawn, PushItem, Report, jpeg, push_items

log = logging.getLogger(__name__)

DRAWN: Final = "drawn"
"""Version of all predictions: it names nobody."""
_SHA_DIGITS: Final = 16
_SENT: Final = 1
"""Any id: the server keeps it as `import_id`, which tells what was sent with a task from what people did."""

_HELP: Final = """\
<p>Somebody else painted this. Check that every object has its right label and outline, then choose:</p>
<ul>
<li><b>Accept</b> (y): it is right as it is.</li>
<li><b>Corrected</b> (m): you repaired it here; your version counts.</li>
<li><b>Reject</b> (n): too much is wrong; its author paints it again.</li>
</ul>
<p>With Corrected and Reject, choose what was wrong as well:</p>
<ul>
<li><b>boundary</b> (u): an outline is off.</li>
<li><b>missing</b> (i): an object has no label.</li>
<li><b>wrong class</b> (o): an object has the label of another.</li>
<li><b>void</b> (p): void where the class can be told, or a class where nobody can tell.</li>
</ul>
<p>To paint on top of a mask, click the right object in the list of regions first, then paint: it grows. Begin a
new object outside the masks, or erase a spot to begin on. {rest}</p>
"""
_BACKGROUND: Final = "Pixels without a label count as background."
_NO_BACKGROUND: Final = "Pixels without a label are left out, as void is."


@dataclass(frozen=True)
class CheckItem:
    """A drawn label map and the photo it is of; `photo.image_id` is the mask's."""

    mask: HumanMask
    photo: PushItem


def check_id(mask: HumanMask) -> str:
    """What stands for one version of one image's label map, where other tasks have the image id."""
    return f"{mask.image_id}#{mask.sha256[:_SHA_DIGITS]}"


def checked_image(name: str) -> str:
    """The image id in a `check_id`."""
    return name.rpartition("#")[0]


def author_of(mask: HumanMask, people: Mapping[int, str]) -> int | None:
    """Who drew a label map, as the server numbers people; None for somebody it does not know (any more)."""
    if mask.annotator_id is not None:
        return mask.annotator_id if mask.annotator_id in people else None
    return next((user_id for user_id, email in people.items() if email == mask.annotator), None)


def check_items(store: Store, number: int, photos: Sequence[PushItem]) -> list[CheckItem]:
    """The label maps of `photos` to check, as drawn now, without those that ops settled before anybody answered."""
    masks, checks = store.remote.masks(number), store.checks.all(number)
    current, dropped = current_checks(masks, checks), dropped_images(checks)

    def is_settled_unseen(image_id: str) -> bool:
        check = current.get(image_id)
        if check is None:
            return image_id in dropped
        return check.verdict.is_settled and check.annotation_id is None

    return [
        CheckItem(masks[photo.image_id], photo)
        for photo in photos
        if photo.image_id in masks and not is_settled_unseen(photo.image_id)
    ]


def are_pushed(store: Store, number: int, items: Sequence[CheckItem]) -> bool:
    """True where the server has a task for each of `items`, and for no other version of a label map."""
    return set(store.remote.tasks(number, ProjectRole.CHECK)) == {check_id(item.mask) for item in items}


def drawn_map(mask: HumanMask) -> LabelMap:
    """(H, W) uint8 of the very version that `mask` names; raises CorruptFileError for another one in its place."""
    path = Path(mask.path)
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != mask.sha256:
        raise CorruptFileError(
            f"image {mask.image_id}: {path} is not the label map that was pulled; delete the file and pull again"
        )
    return read_label_map(path)


def push_checks(
    client: LabelStudioClient,
    store: Store,
    number: int,
    title: str,
    labels: LabelSet,
    items: Sequence[CheckItem],
    *,
    report: Report,
    host: PictureHost | None = None,
) -> RemoteProject:
    """The cross-check project of the round: a task per item, pre-annotated with the drawn label map.

    Nobody's label stream gives them a label map of their own. Tasks of label maps that are not among `items` (any more)
    are deleted, unless somebody answered them. Raises LabelStudioError, and CorruptFileError for a label map whose
    file changed.
    """
    settings = {
        "description": "Check label maps that others painted.",
        "label_config": check_config(labels),
        # One place of the two is taken by the author, see `_author_is_done`.
        "maximum_annotations": 2,
        "skip_queue": "IGNORE_SKIPPED",
        "show_skip_button": False,
        "enable_empty_annotation": False,
        "show_collab_predictions": True,
        "sampling": "Uniform sampling",
        "expert_instruction": _HELP.format(rest=_BACKGROUND if labels.has_background else _NO_BACKGROUND),
        "show_instruction": True,
    }
    project = ensure_project(client, store, number, ProjectRole.CHECK, title, settings)
    _delete_superseded(client, store, number, project, items)
    people = client.people()
    by_id = {check_id(item.mask): item for item in items}

    def draw(key: str, pushed: PushItem) -> Drawn:
        item = by_id[pushed.image_id]
        # As the segmentation project named it, so that it is there already.
        photo = f"{store.remote.item_key(number, ProjectRole.SEGMENTATION, item.mask.image_id)}-a.jpg"
        own = place.own_address(pushed.address)
        prediction = {"model_version": DRAWN, "result": regions_of(drawn_map(item.mask), labels)}
        return {} if own else {photo: jpeg(pushed.load()[0])}, lambda at: {
            "data": {"image": own or at[photo], "item": key},
            "predictions": [prediction],
            "annotations": [_author_is_done(author_of(item.mask, people))],
        }

    place = host or UploadedPictures(client, drawn_in(client, store, number))
    pushed = [replace(item.photo, image_id=name) for name, item in by_id.items()]
    push_items(client, store, number, project, pushed, draw, report, place)
    there = client.project(project.project_id)
    # Any other value, and checkers get an empty canvas without a warning; refused while no task has it.
    if items and there and there.model_version != DRAWN:
        client.patch_project(project.project_id, model_version=DRAWN)
    return project


def _author_is_done(author: int | None) -> Json:
    """A skipped annotation: the label stream takes the task for answered by its author, and by nobody else.

    Skips count here (IGNORE_SKIPPED), so that a task is full with its author's skip and one answer of somebody else.
    With one place and skips that do not count, Label Studio 1.23.2 takes an imported skip for the answer, and nobody is
    given the task. For an unknown author the place is taken in the name of whose token this is.
    """
    skip: Json = {"id": _SENT, "result": [], "was_cancelled": True, "ground_truth": False}
    return skip if author is None else {**skip, "completed_by": author}


def drawn_in(client: LabelStudioClient, store: Store, number: int) -> int | None:
    """Id of the segmentation project, which holds the photos already; None if it is gone."""
    recorded = store.remote.project(number, ProjectRole.SEGMENTATION)
    return recorded.project_id if recorded and client.project(recorded.project_id) else None


def _delete_superseded(
    client: LabelStudioClient, store: Store, number: int, project: RemoteProject, items: Sequence[CheckItem]
) -> None:
    wanted = {store.remote.item_key(number, ProjectRole.CHECK, check_id(item.mask)) for item in items}
    for task in client.tasks(project.project_id):
        if task.item is not None and task.item not in wanted and not task.annotations:
            client.delete_task(task.task_id)
            log.info(
                "round %d: task %d was for a label map that does not count any more", number, task.task_id
            )
