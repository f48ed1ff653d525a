"""Photos on pages: small, inside the file, beside label maps drawn over them."""

import base64
from collections.abc import Mapping
from typing import Final

import numpy as np
from markupsafe import Markup
from PIL import Image

from mad_backend.core.drawing import legend, overlay
from mad_backend.core.labels import LabelMap, LabelSet, RgbImage
from sync.push import jpeg
from training.pages import table

_SIDE: Final = 320
"""Longer side of a picture, in pixels."""
_QUALITY: Final = 80
"""Of a JPEG: a picture takes about 25 kB of a page."""


def picture_row(
    image_id: str, rgb: RgbImage, maps: Mapping[str, LabelMap], labels: LabelSet, caption: str
) -> Markup:
    """The photo and label maps of its size, by what they are called, side by side, and what the colours stand for."""
    photo = _shrunk(rgb, Image.Resampling.LANCZOS)
    small = {name: _shrunk(label_map, Image.Resampling.NEAREST) for name, label_map in maps.items()}
    shown = {"photo": photo} | {name: overlay(photo, m, labels) for name, m in small.items()}
    cells = [_picture(picture, f"{name} of {image_id}") for name, picture in shown.items()]
    drawn = table(list(shown), [cells], caption=caption, text_columns=len(cells))
    return drawn + _legend(maps, labels) if maps else drawn


def _shrunk(pixels: RgbImage | LabelMap, how: Image.Resampling) -> RgbImage:
    height, width = pixels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def _picture(rgb: RgbImage, alt: str) -> Markup:
    return Markup('<img alt="{}" src="data:image/jpeg;base64,{}">').format(
        alt, base64.b64encode(jpeg(rgb, _QUALITY)).decode()
    )


def _legend(maps: Mapping[str, LabelMap], labels: LabelSet) -> Markup:
    seen = np.concatenate([m.ravel() for m in maps.values()]).reshape(1, -1)
    entries = [
        Markup('<span style="color: {}">&#9632;</span> {}').format(color, name)
        for name, color in legend(seen, labels)
    ]
    return Markup("<p>{}</p>").format(Markup(", ").join(entries))
