"""Regions as the browser sends them."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.brush_rle import encode_alpha

LABELS = LabelSet(
    "pets",
    (LabelClass("background", (0, 0, 0)), LabelClass("cat", (200, 0, 0)), LabelClass("dog", (0, 200, 0))),
)
STREET = LabelSet("street", LABELS.classes[1:], has_background=False)


def region(name: str | None, alpha: Any, **changes: Any) -> dict[str, Any]:
    """A bitmask; `alpha` is (H, W) 0..255."""
    pixels = np.zeros((*np.shape(alpha), 4), np.uint8)
    pixels[..., 3] = alpha
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return shape("bitmasklabels", name, np.shape(alpha), imageDataURL=url) | changes


def brush(name: str | None, alpha: Any) -> dict[str, Any]:
    code = encode_alpha(np.asarray(alpha, np.uint8))
    return shape("brushlabels", name, np.shape(alpha), format="rle", rle=code)


def shape(kind: str, name: str | None, size: tuple[int, ...], **value: Any) -> dict[str, Any]:
    return {
        "from_name": "anything",
        "to_name": "image",
        "type": kind,
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "value": value if name is None else {**value, kind: [name]},
    }


def brush_regions_of(label_map: LabelMap, labels: LabelSet) -> list[dict[str, Any]]:
    """What `regions_of` gives, as brush strokes."""
    ids = {name: i for i, name in enumerate(labels.names)} | {"void": 255}
    names = [r["value"]["bitmasklabels"][0] for r in regions_of(label_map, labels)]
    return [brush(name, (label_map == ids[name]) * 255) for name in names]
