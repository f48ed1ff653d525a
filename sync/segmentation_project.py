"""The segmentation project: annotators correct a label map of every image of S and T."""

from collections.abc import Sequence
from typing import Final

from mad_backend.core.labels import LabelSet
from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.label_studio.label_config import segmentation_config
from mad_backend.label_studio.results import regions_of
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pictures import PictureHost, UploadedPictures
from sync.projects import ensure_project
from sync.push import Drawn, PushItem, Report, jpeg, push_items

_CORRECT: Final = """\
<p>Correct the painted masks until every object has its right label and outline; begin anew where that is
faster. What you paint wins over the suggestion beneath.</p>
<p>To paint on top of a mask, click the right object in the list of regions first, then paint: it grows. Begin a
new object outside the masks, or erase a spot to begin on; a stroke begun on a mask is not taken.</p>
"""
_HELP: Final = (
    _CORRECT
    + """\
<p>Pixels without a label count as background. If there is nothing to label, paint one dot of background. Use
<b>void</b> for pixels that nobody can decide.</p>
"""
)
_HELP_ALL: Final = (
    _CORRECT
    + """\
<p>Every pixel should have a label: pixels without one are left out, as are those you paint as <b>void</b>.</p>
"""
)


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
    host: PictureHost | None = None,
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
        "expert_instruction": _HELP if labels.has_background else _HELP_ALL,
        "show_instruction": True,
    }
    project = ensure_project(client, store, number, ProjectRole.SEGMENTATION, title, settings)

    def draw(key: str, item: PushItem) -> Drawn:
        rgb, label_map = item.load()
        photo = f"{key}-a.jpg"
        own = place.own_address(item.address)
        prediction = {"model_version": model_version, "result": regions_of(label_map, labels)}
        return {} if own else {photo: jpeg(rgb)}, lambda at: {
            "data": {"image": own or at[photo], "item": key},
            "predictions": [prediction],
        }

    place = host or UploadedPictures(client)
    push_items(client, store, number, project, items, draw, report, place)
    there = client.project(project.project_id)
    # Any other value, and annotators get an empty canvas without a warning; refused while no task has it.
    if items and there and there.model_version != model_version:
        client.patch_project(project.project_id, model_version=model_version)
    return project
