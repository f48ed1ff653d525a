"""Label Studio results (JSON) to and from label maps and ratings.

A mask travels as a PNG in RGBA whose alpha channel is the mask, at the image's own size.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from mad_backend.core.drawing import VOID_COLOR, VOID_NAME
from mad_backend.core.labels import VOID, LabelMap, LabelSet, Mask
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.bitmask import encode_bitmask
from mad_backend.label_studio.label_config import IMAGE_TAG, MASK_TAG, OUT_OF_DOMAIN, QUALITY_TAG

Region = Mapping[str, Any]
"""One entry of a `result` list, as Label Studio stores it."""

_KIND: Final = "bitmasklabels"


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
    return {
        "id": f"class{class_id:03d}",
        "from_name": MASK_TAG,
        "to_name": IMAGE_TAG,
        "type": _KIND,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"imageDataURL": encode_bitmask(mask, color), _KIND: [name]},
    }


def field_of(holder: object, name: str) -> Any:
    """`holder[name]`, or None where there is no such thing: the server stores whatever it is sent."""
    return holder.get(name) if isinstance(holder, Mapping) else None
