"""Label Studio results (JSON) to and from label maps and ratings.

A mask travels as a PNG in RGBA whose alpha channel is the mask, at the image's own size.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from mad_backend.core.drawing import VOID_COLOR, VOID_NAME
from mad_backend.core.labels import VOID, LabelMap, LabelSet, Mask
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.label_config import IMAGE_TAG, MASK_TAG, OUT_OF_DOMAIN, QUALITY_TAG

Region = Mapping[str, Any]
"""One entry of a `result` list, as Label Studio stores it."""

_KIND: Final = "bitmasklabels"
_DATA_URL: Final = "data:image/png;base64,"
SOLID_ALPHA: Final = 128
"""Strokes are anti-aliased (alpha 0..255, measured); from half opaque on a pixel belongs to the region."""


@dataclass(frozen=True)
class Composed:
    """A label map with exactly one class per pixel, and what was odd about the regions it was made of."""

    label_map: LabelMap
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layer:
    """One region: which pixels (H, W) get which class id."""

    class_id: int
    mask: Mask


def regions_of(label_map: LabelMap, labels: LabelSet) -> list[dict[str, Any]]:
    """One region per class that is present; unpainted pixels mean background, or void where there is none."""
    unpainted = 0 if labels.has_background else VOID
    present = [i for i in np.unique(label_map).tolist() if i != unpainted]
    strangers = [i for i in present if i >= len(labels) and i != VOID]
    if strangers:
        raise LabelFormatError(
            f'label map has class ids {strangers}; label set "{labels.name}" ends at {len(labels) - 1}'
        )
    return [_region(label_map == i, i, labels) for i in present]


def compose(
    result: Sequence[Region],
    labels: LabelSet,
    height: int,
    width: int,
    parent: Sequence[Region] | None = None,
) -> Composed:
    """(height, width) label map of an annotation; `parent` is the prediction it was started from.

    Regions overlap: array order is paint order and the later one wins, except that pixels a person added
    beat those left as predicted (adding to an old region keeps its early place). Void wins within each of
    the two. Raises LabelFormatError for another image size, a rotation, an unknown label or a mask that is
    no PNG.
    """
    layers, notes = _layers(result, labels, height, width)
    predicted: dict[int, Mask] = {}
    for layer in _layers(parent or (), labels, height, width)[0]:
        known = predicted.get(layer.class_id)
        predicted[layer.class_id] = layer.mask if known is None else known | layer.mask
    label_map = np.full((height, width), 0 if labels.has_background else VOID, np.uint8)
    ordered = sorted(layers, key=lambda layer: layer.class_id == VOID)
    for layer in ordered:
        if layer.class_id in predicted:
            label_map[layer.mask & predicted[layer.class_id]] = layer.class_id
    for layer in ordered:
        kept = predicted.get(layer.class_id)
        label_map[layer.mask if kept is None else layer.mask & ~kept] = layer.class_id
    return Composed(label_map, tuple(notes))


def rating_of(result: Sequence[Region]) -> int | None:
    """ACR score 1 to 5, or None for a veto (out of domain); raises LabelFormatError for anything else."""
    answers = [
        field_of(field_of(r, "value"), "choices") for r in result if field_of(r, "from_name") == QUALITY_TAG
    ]
    match answers:
        case [["1" | "2" | "3" | "4" | "5" as digit]]:
            return int(digit)
        case [[choice]] if choice == OUT_OF_DOMAIN:
            return None
    raise LabelFormatError(f'rating: wanted one choice of 1 to 5 or "{OUT_OF_DOMAIN}", came {answers!r:.80}')


def _region(mask: Mask, class_id: int, labels: LabelSet) -> dict[str, Any]:
    height, width = mask.shape
    name, color = (VOID_NAME, VOID_COLOR)
    if class_id != VOID:
        name, color = labels.classes[class_id].name, labels.classes[class_id].color
    pixels = np.empty((height, width, 4), np.uint8)
    pixels[..., :3] = color
    pixels[..., 3] = mask * np.uint8(255)
    pixels[~mask] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return {
        "id": f"class{class_id:03d}",
        "from_name": MASK_TAG,
        "to_name": IMAGE_TAG,
        "type": _KIND,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"imageDataURL": _DATA_URL + base64.b64encode(file.getvalue()).decode(), _KIND: [name]},
    }


def _layers(
    result: Sequence[Region], labels: LabelSet, height: int, width: int
) -> tuple[list[_Layer], list[str]]:
    layers, notes = [], []
    for place, region in enumerate(result, start=1):
        value = field_of(region, "value")
        url = field_of(value, "imageDataURL")
        named = field_of(value, _KIND)
        if url is None and named is None and field_of(region, "type") == "relation":
            continue
        if not named and url is not None:
            notes.append(f"region {place} has no label and was left out")
            continue
        if not (isinstance(named, list) and len(named) == 1):
            raise LabelFormatError(
                f"region {place}: wanted a bitmask with one label, came {_describe(region)}"
            )
        _check_geometry(region, place, height, width)
        try:
            mask = decode_bitmask(url, height, width)
        except LabelFormatError as error:
            raise LabelFormatError(f"region {place}: {error}") from error
        layers.append(_Layer(_class_id(named[0], labels, place), mask))
    return layers, notes


def _check_geometry(region: Region, place: int, height: int, width: int) -> None:
    size = (field_of(region, "original_height"), field_of(region, "original_width"))
    if size != (height, width):
        raise LabelFormatError(
            f"region {place} was drawn on an image of height {size[0]}, width {size[1]}; the image has "
            f"{height}, {width}"
        )
    if field_of(region, "image_rotation"):
        raise LabelFormatError(
            f"region {place} was drawn on an image turned by {region['image_rotation']} degrees; draw it "
            "upright"
        )


def _class_id(name: object, labels: LabelSet, place: int) -> int:
    if name == VOID_NAME:
        return VOID
    if name not in labels.names:
        raise LabelFormatError(
            f'region {place} has the label "{name}", which label set "{labels.name}" does not know; it has: '
            f"{', '.join(labels.names)}, {VOID_NAME}"
        )
    return labels.names.index(str(name))


def decode_bitmask(url: object, height: int, width: int) -> Mask:
    """(height, width) bool mask of a PNG data URL; its size is checked before the pixels are unpacked.

    Raises LabelFormatError when it is no such PNG.
    """
    if not (isinstance(url, str) and url.startswith(_DATA_URL)):
        raise LabelFormatError(f"wanted a PNG data URL, came {str(url)[:40]!r}")
    try:
        data = base64.b64decode(url[len(_DATA_URL) :], validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.size != (width, height):
                raise LabelFormatError(f"mask is {picture.size}, the image is {(width, height)}")
            if not picture.has_transparency_data:
                raise LabelFormatError(f"mask has no alpha channel (mode {picture.mode})")
            alpha = np.asarray(picture.convert("RGBA"), dtype=np.uint8)[..., 3]
    except (binascii.Error, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise LabelFormatError(f"mask is not a readable PNG ({error})") from error
    return alpha >= SOLID_ALPHA


def field_of(holder: object, name: str) -> Any:
    """`holder[name]`, or None where there is no such thing: the server stores whatever it is sent."""
    return holder.get(name) if isinstance(holder, Mapping) else None


def _describe(region: object) -> str:
    value = field_of(region, "value")
    keys = sorted(value) if isinstance(value, Mapping) else value
    return f"type {field_of(region, 'type')!r} with {keys!r:.80}"
