"""A labelling project that somebody else made: its photos, its interface, and what people drew in it."""

import io
from typing import Any

import numpy as np
from PIL import Image

from mad_backend.core.labels import LabelClass, LabelSet, Mask
from sync.client import LabelStudioClient
from tests.label_studio.rle_encoder import rle_of

HEIGHT, WIDTH = 20, 30
LABELS = LabelSet(
    "pets",
    (LabelClass("background", (0, 0, 0)), LabelClass("cat", (200, 0, 0)), LabelClass("dog", (0, 200, 0))),
)
SIZES = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}


def photo(seed: int, orientation: int = 1) -> bytes:
    """A JPEG of HEIGHT x WIDTH pixels, before it is turned by its EXIF entry."""
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def square(top: int, left: int, height: int = HEIGHT, width: int = WIDTH) -> Mask:
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + 6, left : left + 6] = True
    return mask


def brush(mask: Mask, label: str, **changed: Any) -> dict[str, Any]:
    rgba = np.repeat(mask[..., None] * np.uint8(255), 4, axis=-1)
    value = {"format": "rle", "rle": rle_of(rgba.ravel()), "brushlabels": [label]}
    return {
        "from_name": "pinsel",
        "to_name": "bild",
        "type": "brushlabels",
        **SIZES,
        "value": value,
        **changed,
    }


def polygon(top: int, left: int, label: str) -> dict[str, Any]:
    """`square`, in percent."""
    xs, ys = [100 * x / WIDTH for x in (left, left + 6)], [100 * y / HEIGHT for y in (top, top + 6)]
    points = [[xs[0], ys[0]], [xs[1], ys[0]], [xs[1], ys[1]], [xs[0], ys[1]]]
    value = {"points": points, "closed": True, "polygonlabels": [label]}
    return {"from_name": "form", "to_name": "bild", "type": "polygonlabels", **SIZES, "value": value}


def interface(tag: str, name: str, *labels: str) -> str:
    entries = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        f'<View><{tag} name="{name}" toName="bild">{entries}</{tag}><Image name="bild" value="$foto"/>'
        '<Choices name="wetter" toName="bild"><Choice value="Regen"/></Choices></View>'
    )


class Theirs:
    """A project that somebody else made."""

    def __init__(self, client: LabelStudioClient, config: str) -> None:
        self.client = client
        self.id = client.create_project(title="Straßenbilder", label_config=config).project_id

    def add(self, *photos: bytes) -> list[int]:
        """A task for each; their ids."""
        before = {task.task_id for task in self.client.tasks(self.id)}
        self.client.upload(self.id, {f"{n}.jpg": content for n, content in enumerate(photos, len(before))})
        there = self.client.uploads(self.id)
        data = [{"data": {"foto": there[f"{n}.jpg"]}} for n, _ in enumerate(photos, len(before))]
        self.client.import_tasks(self.id, data)
        return [t.task_id for t in self.client.tasks(self.id) if t.task_id not in before]
