"""Small COCO files, and how tests read them."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.pool.sources import LabelledImage, list_images, list_labelled
from mad_backend.pool.truths import Truth
from mad_backend.settings import SourceSettings

NO_MIRRORS = Path("no-mirrors")
SIZE = 16
PETS = LabelSet("pets", tuple(LabelClass(name, (0, 0, 0)) for name in ("background", "cat", "dog")))
STREET = LabelSet("street", PETS.classes[1:], has_background=False)
CATEGORIES = [
    {"id": 17, "name": "cat"},
    {"id": 3, "name": "wölfchen \u732b", "supercategory": "annotations"},
    {"id": 90, "name": "tree"},
]
CLASSES = {"wölfchen \u732b": "dog", "tree": "ignore"}


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def instance(image: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0, **more}


def crowd_of(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    runs = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return {"size": list(mask.shape), "counts": runs}


def images(folder: Path, *names: str) -> list[dict[str, Any]]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIZE, SIZE)).save(folder / name)
    return [
        {"id": 7 * n, "file_name": name, "height": SIZE, "width": SIZE} for n, name in enumerate(names, 1)
    ]


def write(path: Path, content: dict[str, Any], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, **how), encoding="utf-8")
    return path


def source(path: Path, **keys: Any) -> SourceSettings:
    given = {"name": "s", "coco": path, "images": path.parent / "images", "classes": CLASSES}
    return SourceSettings.model_validate(given | keys)


def labelled(wanted: SourceSettings, labels: LabelSet = PETS) -> dict[str, LabelledImage]:
    found = list_labelled([wanted], NO_MIRRORS, labels)
    assert [item.image for item in found] == list_images([wanted], NO_MIRRORS)
    return {item.image.image_id: item for item in found}


def as_other_processes_get_it(truth: Truth) -> Truth:
    adapter = TypeAdapter(Truth)
    again = adapter.validate_json(adapter.dump_json(truth))
    assert again == truth == pickle.loads(pickle.dumps(truth))
    assert hash(again) == hash(truth)
    return again
