"""The segmentation project: annotators correct a label map of every image of S and T."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.label_studio.answers import DrawingRules, own_interface, preannotate
from mad_backend.label_studio.label_config import segmentation_config
from mad_backend.label_studio.preannotation import json_bytes
from mad_backend.settings import SegmentationSettings
from mad_backend.store.store import Store
from sync.client import Json, LabelStudioClient
from sync.pictures import PictureHost, UploadedPictures
from sync.projects import ensure_project
from sync.push import Drawn, PushItem, Report, jpeg, push_items

log = logging.getLogger(__name__)

START: Final = "start"
"""The one version that all starting predictions have where they come from several models: a project has only one."""

_AS_IS: Final = SegmentationSettings()

_CORRECT: Final = """\
<p>Correct the painted masks until every object has its right label and outline; begin anew where that is
faster. What you paint wins over the suggestion beneath.</p>
<p>To paint on top of a mask, click the right object in the list of regions first, then paint: it grows. Begin a
new object outside the masks, or erase a spot to begin on; a stroke begun on a mask is not taken.</p>
"""
_PAINT: Final = """\
<p>Paint every object with its label. Where two labels overlap, the one begun later counts.</p>
"""
_KEYS: Final = """\
<p>Keys: a label's own key chooses it, <b>B</b> paints, <b>E</b> erases in the chosen region, <b>[</b> and <b>]</b>
change the size, <b>U</b> lets go of a region, <b>Ctrl+Enter</b> submits (<b>Enter</b>,
if that was set up for you).</p>
"""
_FURTHER: Final = """\
<p>What other models suggest stands in tabs above the picture when you open it from the list of tasks. "Duplicate
Annotation" in the menu of a tab makes it your own beginning.</p>
"""
_REST: Final = """\
<p>Pixels without a label count as background. If there is nothing to label, paint one dot of background. Use
<b>void</b> for pixels that nobody can decide.</p>
"""
_REST_IS_VOID: Final = """\
<p>Every pixel should have a label: pixels without one are left out, as are those you paint as <b>void</b>.</p>
"""


@dataclass(frozen=True)
class Starting:
    """What the annotator of one image starts from, None for an empty canvas; `further` maps by their model's name.

    All at the photo's size.
    """

    start: LabelMap | None
    further: Mapping[str, LabelMap] = field(default_factory=dict)


StartingMaps: TypeAlias = Callable[[str, LabelMap], Starting]
"""(image id, the target's label map at the photo's size) -> what is sent; asked for an image when it is sent."""


def from_target(_image_id: str, label_map: LabelMap) -> Starting:
    """The target's own map, and nothing beside it."""
    return Starting(label_map)


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
    starting: StartingMaps = from_target,
    settings: SegmentationSettings = _AS_IS,
) -> RemoteProject:
    """The segmentation project of the round, a task per item, pre-annotated as `starting` and `settings` say.

    `model_version` is the target's. Tasks are sent in the order of their keys and given out at random, so that the test
    set cannot be told from the failures. Raises LabelStudioError.
    """
    is_empty = settings.start_from == "none"
    made_with = {
        "description": "Label every pixel." if is_empty else "Correct the label of every pixel.",
        "label_config": segmentation_config(labels),
        "maximum_annotations": 1,
        "enable_empty_annotation": False,
        "show_collab_predictions": not is_empty,
        "sampling": "Uniform sampling",
        "expert_instruction": _instruction(labels, settings),
        "show_instruction": True,
    }
    project = ensure_project(client, store, number, ProjectRole.SEGMENTATION, title, made_with)
    version = "" if is_empty else _version(client, project, model_version, settings)

    def draw(key: str, item: PushItem) -> Drawn:
        rgb, label_map = item.load()
        photo = f"{key}-a.jpg"
        own = place.own_address(item.address)
        maps = starting(item.image_id, label_map)
        predictions, notes = _predictions(maps, version, labels, settings)
        if notes:
            log.info("round %d: image %s: %s", number, item.image_id, "; ".join(notes))
        return {} if own else {photo: jpeg(rgb)}, lambda at: {
            "data": {"image": own or at[photo], "item": key},
            "predictions": predictions,
        }

    def by_key(item: PushItem) -> str:
        return store.remote.item_key(number, ProjectRole.SEGMENTATION, item.image_id)

    place = host or UploadedPictures(client)
    push_items(client, store, number, project, sorted(items, key=by_key), draw, report, place)
    if items:
        # Any other value, and annotators get an empty canvas without a warning; refused while no task has it.
        client.patch_project(project.project_id, show_collab_predictions=not is_empty, model_version=version)
    return project


def _instruction(labels: LabelSet, settings: SegmentationSettings) -> str:
    begin = _PAINT if settings.start_from == "none" else _CORRECT
    further = _FURTHER if settings.further else ""
    return begin + (_REST if labels.has_background else _REST_IS_VOID) + _KEYS + further


def _version(
    client: LabelStudioClient, project: RemoteProject, target: str, settings: SegmentationSettings
) -> str:
    """What the starting predictions are called: as those that are there already, which would open empty otherwise."""
    there = client.project(project.project_id)
    if there and there.tasks and there.model_version in (target, START):
        return there.model_version
    return START if settings.start_from == "best" else target


def _predictions(
    maps: Starting, version: str, labels: LabelSet, settings: SegmentationSettings
) -> tuple[list[Json], list[str]]:
    """At most `settings.max_bytes` of JSON: half for the start where there are others, the rest shared by them.

    And what had to be left out for that.
    """
    further = [(name, label_map) for name, label_map in maps.further.items() if name != version]
    ordered = [*([] if maps.start is None else [(version, maps.start)]), *further]
    left, predictions, notes = settings.max_bytes, [], []
    for place, (name, label_map) in enumerate(ordered):
        share = left // 2 if further and name == version else left // (len(ordered) - place)
        rules = DrawingRules(settings.min_region, share)
        made = preannotate(label_map, own_interface(labels), labels, rules)
        left -= json_bytes(made.regions)
        predictions.append({"model_version": name, "result": list(made.regions)})
        notes += [f"{name}: {note}" for note in made.notes]
    # The start last: the server takes the last version of a project's first import for the project's own.
    return predictions[::-1], notes
