"""A peer of `mad serve`: an ML backend as `label-studio-ml` makes them, with the SDK's brush masks.

One process that owns the model, and an instance for each request; run with a settings file and the SDK's folder.
"""

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, Response, jsonify, request
from waitress.server import create_server

from benchmarks.served_target import LABELS
from mad_backend.core.grid import Grid
from mad_backend.core.records import PoolImage
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import load_model
from mad_backend.pool.images import decode_frame
from mad_backend.settings_file import load_settings

GRID = Grid()


@cache
def brush(sdk: Path) -> Any:
    """`label_studio_sdk.converter.brush` of another environment, which needs NumPy and Pillow only."""
    spec = spec_from_file_location("brush", sdk / "converter" / "brush.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Backend:
    """One for each request, as `LabelStudioMLBase` is."""

    def __init__(self, model: SegmentationModel, sdk: Path) -> None:
        self.model = model
        self.mask2rle = brush(sdk).mask2rle

    def predict(self, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"model_version": "peer", "score": None, "result": self.regions(task)} for task in tasks]

    def regions(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        """A brush region for each class but the background."""
        path = task["data"]["image"]
        frame = decode_frame(PoolImage(path, path), Path(path).read_bytes(), GRID)
        (label_map,) = self.model.predict([frame])
        assert label_map is not None
        whole = GRID.restore(label_map, *frame.size)
        return [
            {
                "id": f"r{class_id}",
                "from_name": "mask",
                "to_name": "image",
                "type": "brushlabels",
                "original_width": frame.size[1],
                "original_height": frame.size[0],
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": self.mask2rle((whole == class_id).astype(np.uint8) * 255),
                    "brushlabels": [LABELS.names[class_id]],
                },
            }
            for class_id in np.unique(whole).tolist()
            if class_id
        ]


def main(config: Path, sdk: Path) -> None:
    """Serves on a free port of this machine until it is ended."""
    settings = load_settings(config)
    model = load_model("peer", settings.models.target, LABELS, GRID)
    app = Flask(__name__)

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="UP")

    @app.post("/predict")
    def predict() -> Response:
        return jsonify(results=Backend(model, sdk).predict(request.get_json()["tasks"]))

    server: Any = create_server(app, host="127.0.0.1", port=0, threads=8)
    sys.stdout.write(f"http://127.0.0.1:{server.effective_port}\n")
    sys.stdout.flush()
    server.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
