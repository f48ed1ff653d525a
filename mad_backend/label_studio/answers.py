"""Label maps as a project's interface wants them: which image, which control, which label stands for which class."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from mad_backend.core.drawing import VOID_COLOR, VOID_NAME
from mad_backend.core.labels import VOID, LabelMap, LabelSet
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.any_project import check_classes, labels_of_classes
from mad_backend.label_studio.bitmask import encode_bitmasks
from mad_backend.label_studio.brush_rle import encode_alpha
from mad_backend.label_studio.controls import Control, area_controls, shown_images
from mad_backend.label_studio.label_config import IMAGE_TAG, MASK_TAG, parsed
from mad_backend.label_studio.polygons import outlines, percent
from mad_backend.label_studio.preannotation import Preannotation, within_budget
from mad_backend.label_studio.regions import AreaKind

log = logging.getLogger(__name__)

_KINDS: Final = {
    "BitmaskLabels": AreaKind.BITMASK,
    "BrushLabels": AreaKind.BRUSH,
    "PolygonLabels": AreaKind.POLYGON,
}
"""The tags that take label maps, the best first: masks are exact, and bitmasks are the smaller ones."""
_WANTED: Final = (
    f"one of {', '.join(f'<{tag}>' for tag in _KINDS)} whose toName is the name of an <Image>, "
    'which shows a field of the task (value="$image")'
)


@dataclass(frozen=True)
class AnswerInterface:
    """`field` of a task's data holds the image; `labels` is class id (255: void) -> label of the control.

    Classes that are not in it are not painted. `kind` is a bitmask, a brush or a polygon.
    """

    field: str
    image_tag: str
    control: str
    kind: AreaKind
    labels: Mapping[int, str]


@dataclass(frozen=True)
class DrawingRules:
    """Regions of fewer than `min_region` pixels are cleaned away, those of a task have at most `max_bytes` of JSON.

    The outline of a polygon is at most `polygon_tolerance` pixels from the label map's.
    """

    min_region: int
    max_bytes: int
    polygon_tolerance: float = 0.0


def answer_interface(config: str, labels: LabelSet, given: Mapping[str, str]) -> AnswerInterface:
    """Of a label configuration; `given` is label -> class, for labels whose name or predicted_values do not say it.

    Of several controls the best one counts whose labels stand for classes. Raises LabelFormatError where nothing takes
    masks on an image, or no label stands for a class; SettingsError where `given` names a class that is not there.
    """
    check_classes(given, labels, "serve.labels")
    root = parsed(config)
    images = shown_images(root)
    controls = area_controls(root, tuple(_KINDS))
    usable = [control for control in controls if control.name and control.image in images]
    if not usable:
        named = [f"<{c.tag} name={c.name!r:.40} toName={c.image!r:.40}>" for c in controls[:8]]
        shown = [f"{name!r:.40}" for name in images][:8]
        raise LabelFormatError(
            f"nothing takes masks on an image; wanted {_WANTED}; found {', '.join(named) or 'none'}, images: "
            f"{', '.join(shown) or 'none'}"
        )
    for control in usable:
        chosen = labels_of_classes(control.labels, labels, given)
        if chosen:
            kind = _KINDS[control.tag]
            return AnswerInterface(images[control.image], control.image, control.name, kind, chosen)
    raise LabelFormatError(_no_class(usable, labels))


def own_interface(labels: LabelSet) -> AnswerInterface:
    """That of our segmentation and check projects: what stays unpainted is background, or void where there is none."""
    names = {class_id: labels.names[class_id] for class_id in labels.foreground_ids}
    void = {VOID: VOID_NAME} if labels.has_background else {}
    return AnswerInterface("image", IMAGE_TAG, MASK_TAG, AreaKind.BITMASK, names | void)


def draw(
    label_map: LabelMap, interface: AnswerInterface, labels: LabelSet, rules: DrawingRules
) -> tuple[dict[str, Any], ...]:
    """Regions of a (H, W) label map at the image's own size, as the interface's control stores them.

    Raises LabelFormatError for class ids that the label set does not have.
    """
    made = preannotate(label_map, interface, labels, rules)
    if made.notes:
        log.info("for %s on %s: %s", interface.control, interface.image_tag, "; ".join(made.notes))
    return made.regions


def preannotate(
    label_map: LabelMap, interface: AnswerInterface, labels: LabelSet, rules: DrawingRules
) -> Preannotation:
    """What `draw` gives, and what had to be done to keep it within its budget."""
    return within_budget(
        _merged(label_map, interface, labels),
        partial(_painted, interface=interface, labels=labels, tolerance=rules.polygon_tolerance),
        min_region=rules.min_region,
        max_bytes=rules.max_bytes,
    )


def regions_of(label_map: LabelMap, labels: LabelSet) -> list[dict[str, Any]]:
    """One region per class of a (H, W) map that is present, for our own interface, and nothing cleaned.

    Raises LabelFormatError for class ids that the label set does not have.
    """
    interface = own_interface(labels)
    return _painted(_merged(label_map, interface, labels), interface, labels, 0.0)


def _no_class(controls: list[Control], labels: LabelSet) -> str:
    found = [f"{label.name!r:.40}" for control in controls for label in control.labels]
    dynamic = next((control for control in controls if control.dynamic), None)
    if not found and dynamic:
        return (
            f"the labels of {dynamic.name!r:.40} come with each task (value={dynamic.dynamic!r:.40}); write them into "
            f"the label configuration as <Label> tags; classes: {', '.join(labels.names)}"
        )
    return (
        f"none of the labels {', '.join(found[:40]) or '(there are none)'} stands for a class of label set "
        f'"{labels.name}" ({", ".join(labels.names)}); say which under serve.labels in the settings, or in the label '
        'configuration: <Label value="..." predicted_values="class, class"/>'
    )


def _merged(label_map: LabelMap, interface: AnswerInterface, labels: LabelSet) -> LabelMap:
    """A copy in which classes of one label are the first of them, and so are all that stay unpainted."""
    strangers = [i for i in _present(label_map) if i >= len(labels) and i != VOID]
    if strangers:
        raise LabelFormatError(
            f'label map has class ids {strangers}; label set "{labels.name}" ends at {len(labels) - 1}'
        )
    firsts: dict[str | None, int] = {}
    table = np.zeros(256, np.uint8)
    for class_id in (*range(len(labels)), VOID):
        table[class_id] = firsts.setdefault(interface.labels.get(class_id), class_id)
    merged: LabelMap = table.take(label_map)
    return merged


def _painted(
    label_map: LabelMap, interface: AnswerInterface, labels: LabelSet, tolerance: float
) -> list[dict[str, Any]]:
    """The regions of a map made by `_merged`, in order of class ids."""
    height, width = label_map.shape
    present = [class_id for class_id in _present(label_map) if class_id in interface.labels]
    values: list[tuple[int, str, dict[str, Any]]]
    match interface.kind:
        case AreaKind.BITMASK:
            urls = encode_bitmasks(label_map, {i: _color(i, labels) for i in present})
            values = [(i, "", {"imageDataURL": url}) for i, url in urls.items()]
        case AreaKind.BRUSH:
            codes = [(i, encode_alpha((label_map == i) * np.uint8(255))) for i in present]
            values = [(i, "", {"format": "rle", "rle": code}) for i, code in codes]
        case AreaKind.POLYGON:
            rings = sorted(outlines(label_map, present, tolerance), key=lambda found: found[0])
            values = [
                (i, f"-{n}", {"points": percent(ring, height, width), "closed": True})
                for n, (i, ring) in enumerate(rings, start=1)
            ]
        case _:
            raise LabelFormatError(f"label maps cannot be drawn as {interface.kind}; wanted {_WANTED}")
    return [
        {
            "id": f"class{class_id:03d}{place}",
            "from_name": interface.control,
            "to_name": interface.image_tag,
            "type": interface.kind.value,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": value | {interface.kind.value: [interface.labels[class_id]]},
        }
        for class_id, place, value in values
    ]


def _present(label_map: LabelMap) -> list[int]:
    """Class ids in order."""
    present: list[int] = np.flatnonzero(np.bincount(label_map.reshape(-1), minlength=256)).tolist()
    return present


def _color(class_id: int, labels: LabelSet) -> tuple[int, int, int]:
    return VOID_COLOR if class_id == VOID else labels.classes[class_id].color
