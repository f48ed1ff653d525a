"""The SDK's own way of what the benchmarks measure, run by the interpreter that has `label_studio_sdk`.

Reads one JSON object from standard input (url, token, what, ...) and prints the seconds it took, without importing the
SDK, drawing, or making the project.
"""

import base64
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from label_studio_sdk import LabelStudio
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image

CHUNK = 50


def import_rating(client: LabelStudio, asked: dict) -> None:
    """Pictures are sent inside of the tasks: the SDK has no call that uploads files."""
    photos, overlays = (sorted(Path(asked[name]).iterdir()) for name in ("photos", "overlays"))
    pairs = list(zip(photos, overlays, strict=True))
    tasks = (
        {
            "image": data_url(pairs[n % len(pairs)][0]),
            "overlay": data_url(pairs[n % len(pairs)][1]),
            "legend": "",
        }
        for n in range(asked["count"])
    )
    import_chunks(client, asked["project"], ({"data": task} for task in tasks))


def import_segmentation(client: LabelStudio, asked: dict) -> None:
    """With brush masks as the SDK's own encoder makes them."""
    pairs = list(zip(*(sorted(Path(asked[name]).iterdir()) for name in ("photos", "maps")), strict=True))
    tasks = (pre_annotated(*pairs[n % len(pairs)], asked["names"]) for n in range(asked["count"]))
    import_chunks(client, asked["project"], tasks)


def pre_annotated(photo: Path, label_map: Path, names: list[str]) -> dict:
    """A task with one region for each class but the background."""
    ids = np.asarray(Image.open(label_map))
    height, width = ids.shape
    result = [
        {
            "id": f"r{class_id}",
            "from_name": "mask",
            "to_name": "image",
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": mask2rle((ids == class_id).astype(np.uint8) * 255),
                "brushlabels": ["void" if class_id == 255 else names[class_id]],
            },
        }
        for class_id in np.unique(ids).tolist()
        if class_id
    ]
    return {"data": {"image": data_url(photo)}, "predictions": [{"model_version": "m", "result": result}]}


def import_chunks(client: LabelStudio, project: int, tasks: Iterator[dict]) -> None:
    """50 tasks a request, as ours."""
    chunk: list[dict] = []
    for task in tasks:
        chunk.append(task)
        if len(chunk) == CHUNK:
            client.projects.import_tasks(project, request=chunk)
            chunk = []
    if chunk:
        client.projects.import_tasks(project, request=chunk)


def data_url(path: Path) -> str:
    """The file itself, as an address."""
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()


def list_tasks(client: LabelStudio, asked: dict) -> None:
    """Every task with its annotations."""
    found = list(client.tasks.list(project=asked["project"], fields="all", page_size=100))
    assert len(found) == asked["count"]


def export(client: LabelStudio, asked: dict) -> None:
    """A snapshot, made and downloaded."""
    assert len(client.projects.exports.as_json(asked["project"])) == asked["count"]


WAYS = {
    "import_rating": import_rating,
    "import_segmentation": import_segmentation,
    "list_tasks": list_tasks,
    "export": export,
}

if __name__ == "__main__":
    asked = json.load(sys.stdin)
    client = LabelStudio(base_url=asked["url"], api_key=asked["token"])
    began = time.perf_counter()
    WAYS[asked["what"]](client, asked)
    sys.stdout.write(f"{time.perf_counter() - began}\n")
