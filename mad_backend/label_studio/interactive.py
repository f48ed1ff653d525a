"""What a person points at with Label Studio's smart tools, and the object of a label map that lies there.

Label Studio sends the marks of one tool and one label that were not answered yet: keypoints ("is_positive" false where
Alt was held), or shapes, in percent of the image, as results have them.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import VOID, LabelMap, LabelSet, Mask
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.answers import AnswerInterface, DrawingRules, draw
from mad_backend.label_studio.preannotation import without_specks
from mad_backend.label_studio.regions import Area, AreaKind
from mad_backend.label_studio.results import Region, field_of

_MOST_MARKS: Final = 64
"""In one context; people make a few."""
_POINTS: Final = ("keypoint", "keypointlabels")
_SHAPES: Final = {kind.removesuffix("labels"): kind for kind in AreaKind}
"""A shape of a tag without labels has the type "rectangle", its label comes as an entry of its own."""


@dataclass(frozen=True)
class Click:
    """`x` and `y` are percent of the image's width and height; a negative one takes away what lies under it."""

    x: float
    y: float
    is_positive: bool


@dataclass(frozen=True)
class Shape:
    """A box or another shape around the object, its numbers in percent of the image; the `place`th mark, from 1."""

    place: int
    kind: AreaKind
    value: Region


@dataclass(frozen=True)
class Prompt:
    """What was marked on the image of one task; nothing, when a person took the last mark back."""

    clicks: tuple[Click, ...] = ()
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class Component:
    """Pixels that a prompt stands for, (H, W) bool, and their class."""

    mask: Mask
    class_id: int


def prompt_of(context: object, image_tag: str) -> Prompt | None:
    """What `params.context` of a request says about the image `image_tag`; None where nobody used a smart tool.

    Raises LabelFormatError for marks that cannot be read.
    """
    if context is None or (isinstance(context, Mapping) and "result" not in context):
        return None
    marks = field_of(context, "result")
    if not isinstance(marks, list):
        raise LabelFormatError(f'context: wanted {{"result": [...]}}, came {type(context).__name__}')
    if len(marks) > _MOST_MARKS:
        raise LabelFormatError(f"context: {len(marks)} marks came; at most {_MOST_MARKS} are taken at once")
    clicks, shapes = [], []
    for place, mark in enumerate(marks, start=1):
        if field_of(mark, "to_name") not in (image_tag, None):
            continue
        kind, value = field_of(mark, "type"), field_of(mark, "value")
        if field_of(mark, "image_rotation"):
            raise LabelFormatError(f"mark {place} is on the image turned; turn it upright and mark anew")
        if kind in _POINTS:
            clicks.append(_click(place, value, field_of(mark, "is_positive") is not False))
        elif isinstance(kind, str) and kind.removesuffix("labels") in _SHAPES:
            shapes.append(Shape(place, _SHAPES[kind.removesuffix("labels")], _mapping(place, value)))
        elif kind != "labels":
            told = repr(kind[:40]) if isinstance(kind, str) else type(kind).__name__
            raise LabelFormatError(
                f"mark {place} has type {told}; wanted {', '.join(('keypoint', *_SHAPES))}"
            )
    return Prompt(tuple(clicks), tuple(shapes))


def component_under(label_map: LabelMap, prompt: Prompt, classes: Collection[int]) -> Component | None:
    """The 4-connected components of a (H, W) map that are meant, of those `classes`; None where there is none.

    A click means what lies under it. A shape means, of the class of `classes` that has most pixels in it (of equal ones
    the smallest), the component that it covers most of. All are taken together, under the class of the first, but for
    those under negative clicks. Raises LabelFormatError for shapes that cannot be decoded.
    """
    from mad_backend.label_studio.speck_kernels import number_components

    height, width = label_map.shape
    components, sizes = np.empty((height, width), np.int32), np.empty(label_map.size, np.int32)
    number_components(np.ascontiguousarray(label_map), components, sizes)
    seeds = [(_pixel(click, label_map), click.is_positive) for click in prompt.clicks]
    wanted = [pixel for pixel, is_positive in seeds if is_positive and int(label_map[pixel]) in classes]
    for shape in prompt.shapes:
        inside = Area(shape.place, None, shape.kind, "", height, width, shape.value).mask()
        wanted += _most_covered(label_map, components, inside, classes)
    if not wanted:
        return None
    refused = [components[pixel] for pixel, is_positive in seeds if not is_positive]
    chosen = np.zeros(int(components.max()) + 1, np.bool_)
    chosen[[components[pixel] for pixel in wanted]] = True
    chosen[refused] = False
    left = [pixel for pixel in wanted if chosen[components[pixel]]]
    return Component(chosen[components], int(label_map[left[0]])) if left else None


def propose(
    label_map: LabelMap, prompt: Prompt, interface: AnswerInterface, labels: LabelSet, rules: DrawingRules
) -> tuple[dict[str, Any], ...]:
    """What the prompt means of a (H, W) map at the image's own size, as `draw` gives it; nothing for background.

    The map is cleaned of specks first, so that what is proposed is what pre-annotations show. Ids tell regions apart
    by what they are: Label Studio replaces a region by another of its id, as it should where the same object is
    clicked again and nowhere else. Raises LabelFormatError.
    """
    merged = _by_label(label_map, interface)
    classes = frozenset(interface.labels) - {VOID, *([0] if labels.has_background else [])}
    found = component_under(without_specks(merged, rules.min_region), prompt, classes)
    if found is None:
        return ()
    other = VOID if found.class_id == 0 else 0
    alone = np.where(found.mask, np.uint8(found.class_id), np.uint8(other))
    only = replace(interface, labels={found.class_id: interface.labels[found.class_id]})
    regions = draw(alone, only, labels, replace(rules, min_region=1))
    return tuple({**region, "id": _id_of(region)} for region in regions)


def _by_label(label_map: LabelMap, interface: AnswerInterface) -> LabelMap:
    """A copy in which classes of one label are the first of them, and so are those without: one object is one label."""
    firsts: dict[str | None, int] = {}
    names = [interface.labels.get(class_id) for class_id in range(256)]
    table = np.array([firsts.setdefault(name, class_id) for class_id, name in enumerate(names)], np.uint8)
    merged: LabelMap = table.take(label_map)
    return merged


def _most_covered(
    label_map: LabelMap, components: NDArray[np.int32], inside: Mask, classes: Collection[int]
) -> list[tuple[int, int]]:
    """A pixel of the component that a shape means, or none."""
    counts = np.bincount(label_map[inside], minlength=256)
    counts[[class_id for class_id in range(256) if class_id not in classes]] = 0
    if not counts.any():
        return []
    pixels = np.flatnonzero(inside & (label_map == counts.argmax()))
    numbers = components.reshape(-1)[pixels]
    first = int(pixels[np.argmax(numbers == np.bincount(numbers).argmax())])
    return [divmod(first, label_map.shape[1])]


def _pixel(click: Click, label_map: LabelMap) -> tuple[int, int]:
    """(row, column); the right and the lower edge belong to the last pixels."""
    height, width = label_map.shape
    return min(int(click.y * height / 100), height - 1), min(int(click.x * width / 100), width - 1)


def _click(place: int, value: object, is_positive: bool) -> Click:
    x, y = field_of(value, "x"), field_of(value, "y")
    if not (_is_percent(x) and _is_percent(y)):
        raise LabelFormatError(f"mark {place}: wanted x and y, numbers from 0 to 100 (percent of the image)")
    return Click(float(x), float(y), is_positive)


def _is_percent(number: object) -> bool:
    return isinstance(number, int | float) and 0 <= number <= 100


def _mapping(place: int, value: object) -> Region:
    if not isinstance(value, Mapping):
        raise LabelFormatError(f"mark {place}: wanted a shape's numbers, came {type(value).__name__}")
    return value


def _id_of(region: Mapping[str, Any]) -> str:
    told = json.dumps([region["original_width"], region["original_height"], region["value"]], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=5).hexdigest()
