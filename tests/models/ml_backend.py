"""A small Label Studio ML backend of another party's: a real server on loopback that opens each task's image."""

import io
import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from PIL import Image

from mad_backend.core.labels import LabelClass, LabelMap, LabelSet, RgbImage
from mad_backend.label_studio.answers import regions_of
from tests.label_studio.rle_encoder import rle_of

NAMES = ("background", "cat", "dog")
LABELS = LabelSet("theirs", tuple(LabelClass(name, (9, 9, 9)) for name in NAMES))

Regions = list[Any]
Draw = Callable[[RgbImage], Regions]


def by_brightness(rgb: RgbImage) -> LabelMap:
    """(H, W) uint8: what this backend takes for a segmentation; 0 dark, 1, 2 bright."""
    grey: LabelMap = rgb.mean(axis=2).astype(np.uint8) // 86
    return grey


def bitmasks(rgb: RgbImage) -> Regions:
    return list(regions_of(by_brightness(rgb), LABELS))


def brushes(rgb: RgbImage) -> Regions:
    found = by_brightness(rgb)
    masks = {k: np.repeat(np.where(found == k, 255, 0).astype(np.uint8).ravel(), 4) for k in (1, 2)}
    return [region(rgb, "brushlabels", NAMES[k], format="rle", rle=rle_of(mask)) for k, mask in masks.items()]


def polygons(rgb: RgbImage) -> Regions:
    """A polygon around every pixel that is not dark."""
    height, width = rgb.shape[:2]
    drawn = []
    for (row, column), k in np.ndenumerate(by_brightness(rgb)):
        box = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
        points = [[x / width * 100, y / height * 100] for x, y in box]
        if k:
            drawn.append(region(rgb, "polygonlabels", NAMES[k], points=points, closed=True))
    return drawn


def rectangle(rgb: RgbImage, label: str, x: float, width: float) -> dict[str, Any]:
    """A region of full height from x to x + width percent."""
    return region(rgb, "rectanglelabels", label, x=x, y=0, width=width, height=100, rotation=0)


def region(rgb: RgbImage, kind: str, label: str, **value: Any) -> dict[str, Any]:
    height, width = rgb.shape[:2]
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {"from_name": "mask", "to_name": "image", "type": kind, **size, "value": {**value, kind: [label]}}


@dataclass
class Fault:
    """An answer in place of the right one."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class MlBackend:
    """`draw` makes the regions of an image; `change` may replace the answer's entries; `faults` come before any answer.

    `version` is told by /setup, `answering` by predictions; `variable` is the task's key that holds the address.
    """

    draw: Draw = bitmasks
    version: str | None = "v1"
    answering: str | None = None
    variable: str = "image"
    change: Callable[[list[Any]], list[Any]] = lambda entries: entries
    faults: list[Fault] = field(default_factory=list)
    authorization: str | None = None
    has_setup: bool = True
    delay: Event | None = None
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def predictions(self) -> list[Request]:
        return [request for request in self.requests if request.path == "/predict"]

    def answer(self, request: Request) -> Fault:
        self.requests.append(request)
        if self.authorization and request.headers.get("Authorization") != self.authorization:
            return Fault(401, f"you sent {request.headers}".encode())
        if request.path == "/health":
            return _json({"status": "UP", "model_version": self.version})
        if request.path == "/setup":
            return _json({"model_version": self.version}) if self.has_setup else Fault(404)
        if self.delay:
            self.delay.wait(10)
        if self.faults:
            return self.faults.pop(0)
        try:
            return _json({"results": self.change([self._entry(task) for task in request.body["tasks"]])})
        except ValueError as error:
            return Fault(500, f"cannot: {error}".encode())

    def _entry(self, task: dict[str, Any]) -> dict[str, Any]:
        entry = {"model_version": self.answering, "score": 0.5}
        return {**entry, "result": self.draw(opened(task["data"][self.variable]))}


def opened(address: str) -> RgbImage:
    content = Path(address).read_bytes() if "://" not in address else fetched(address)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=5) as answer:
        content: bytes = answer.read()
    return content


def _json(value: object) -> Fault:
    return Fault(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


@contextmanager
def running(backend: MlBackend) -> Iterator[MlBackend]:
    """The backend on a free port of loopback, with its `url` set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_GET(self) -> None:
            self._respond(None)

        def _respond(self, body: Any) -> None:
            found = backend.answer(Request(self.command, self.path, dict(self.headers), body))
            self.send_response(found.status)
            for name, value in {"Content-Length": str(len(found.body)), **found.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A caller that gave up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    backend.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield backend
    finally:
        if backend.delay:
            backend.delay.set()
        server.shutdown()
        server.server_close()
        thread.join()
