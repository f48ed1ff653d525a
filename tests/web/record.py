"""What Label Studio sends to an ML backend, written anew to `recorded/` by `python -m tests.web.record`.

A server of its own connects to a recorder and is led through all it does with a backend. What differs from run to run
(tokens, people, addresses, times) is replaced by fixed fakes.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

from mad_backend.errors import LabelStudioError
from sync.client import LabelStudioClient
from sync.embedded import EmbeddedLabelStudio
from tests.conftest import EXECUTABLE
from tests.served_world import CONFIG

FOLDER = Path(__file__).parent / "recorded"
USER, PASSWORD = "mad", "a backend's passw0rd"
FAKE_BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
FAKE_TOKEN = "4c1f0e6a5d5b4a1f9c7e2b8d3a6f0c1d2e3f4a5b"
FAKE_TIME = "2026-01-01T00:00:00.000000Z"
KEPT_HEADERS = ("Authorization", "Content-Type", "User-Agent")
REGION = {
    "id": "region0001",
    "from_name": "mask",
    "to_name": "image",
    "type": "bitmasklabels",
    "origin": "manual",
    "original_width": 60,
    "original_height": 40,
    "image_rotation": 0,
    "value": {"imageDataURL": "data:image/png;base64,iVBORw0KGgo=", "bitmasklabels": ["house"]},
}
POINT = {
    "id": "click00001",
    "from_name": "point",
    "to_name": "image",
    "type": "keypointlabels",
    "original_width": 60,
    "original_height": 40,
    "image_rotation": 0,
    "is_positive": True,
    "value": {"x": 20.5, "y": 40.25, "width": 0.5, "labels": ["house"], "keypointlabels": ["house"]},
}
BOX = {
    **POINT,
    "id": "box0000001",
    "from_name": "box",
    "type": "rectanglelabels",
    "value": {"x": 5, "y": 10, "width": 30, "height": 50, "rotation": 0, "rectanglelabels": ["house"]},
}


class Recorder:
    """A backend that answers every task without regions and keeps what it was asked."""

    def __init__(self) -> None:
        self.version = "recorded@0"
        self.calls: list[dict[str, Any]] = []
        self.url = ""

    def answer(self, path: str) -> Response:
        body = request.get_json(silent=True)
        headers = {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers}
        self.calls.append({"method": request.method, "path": f"/{path}", "headers": headers, "body": body})
        if path == "predict":
            one = {"model_version": self.version, "score": None, "result": []}
            return jsonify(results=[one] * len(body["tasks"]))
        return jsonify(status="UP", model_version=self.version, versions=[self.version])

    @contextmanager
    def running(self) -> Iterator["Recorder"]:
        app = Flask("recorder")
        app.add_url_rule("/<path:path>", view_func=self.answer, methods=["GET", "POST"])
        server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def led_through(client: LabelStudioClient, recorder: Recorder) -> Iterator[str]:
    """Does one thing after the other, and says which was done."""
    project = client.create_project(title="recorded", label_config=CONFIG).project_id
    data = [{"data": {"image": f"/data/upload/1/{n}-photo.jpg", "item": f"item-{n}"}} for n in range(3)]
    client.import_tasks(project, data)
    tasks = [task.task_id for task in client.tasks(project)]
    connection = {
        "url": recorder.url,
        "project": project,
        "title": "scenes",
        "is_interactive": True,
        "extra_params": {},
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": USER,
        "basic_auth_pass": PASSWORD,
    }
    backend = client.send("POST", "/api/ml", "connecting", connection)
    yield "connect"
    ml = f"/api/ml/{backend['id']}"
    client.get(f"/api/tasks/{tasks[0]}", "opening a task", {"project": project})
    yield "open"
    recorder.version = "recorded@1"
    client.get(f"/api/projects/{project}/next", "the next task")
    yield "next"
    recorder.version = "recorded@2"
    dm = f"/api/dm/actions?project={project}&id="
    everything = {"selectedItems": {"all": True, "excluded": []}, "project": project}
    client.send("POST", f"{dm}retrieve_tasks_predictions", "retrieving", everything)
    yield "retrieve"
    for name, clicked in (("point", POINT), ("box", BOX)):
        context = {"result": [clicked]}
        client.send("POST", f"{ml}/interactive-annotating", name, {"task": tasks[0], "context": context})
        yield f"interactive-{name}"
    client.send("POST", f"{ml}/predict/test?random=true", "a smoke test")
    yield "test"
    client.get(f"{ml}/versions", "the versions")
    yield "versions"
    client.send("POST", f"{ml}/train", "training")
    yield "train"
    annotation = client.create_annotation(tasks[0], [REGION], lead_time=2.5).annotation_id
    yield "annotate"
    client.get(f"/api/tasks/{tasks[0]}", "opening a task", {"project": project})
    yield "open-annotated"
    client.update_annotation(annotation, [])
    client.send("POST", f"{dm}predictions_to_annotations", "copying predictions", everything)
    client.delete_annotation(annotation)
    yield "change"
    client.import_tasks(project, data[:1])
    last = {"all": False, "included": tasks[2:]}
    client.send("POST", f"{dm}delete_tasks", "deleting a task", {"selectedItems": last, "project": project})
    client.patch_project(project, description="another")
    yield "administer"
    client.send("PATCH", ml, "changing the connection", {**connection, "title": "scenes, renamed"})
    yield "patch"
    client.send("DELETE", ml, "disconnecting")
    yield "disconnect"


def name_of(call: dict[str, Any], step: str) -> str:
    """One file for each kind of request: /predict tells itself apart by the step, a webhook by its action."""
    endpoint = call["path"].strip("/").replace("/", "-")
    if endpoint == "webhook":
        return f"webhook-{call['body']['action'].lower()}"
    return f"predict-{step}" if endpoint == "predict" else endpoint


def scrubbed(text: str, server: EmbeddedLabelStudio, recorder: Recorder) -> str:
    """Without what differs from run to run."""
    text = text.replace(server.token, FAKE_TOKEN).replace(recorder.url, "http://backend.example.com")
    text = text.replace(server.url, "http://labels.example.com")
    text = re.sub(r"Basic [A-Za-z0-9+/=]+", FAKE_BASIC, text)
    text = re.sub(r'"(access_token|token)": "[^"]*"', f'"\\1": "{FAKE_TOKEN}"', text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", FAKE_TIME, text)
    text = re.sub(r'"project": "\d+\.\d+"', '"project": "1.1767225600"', text)
    text = re.sub(r"http://localhost:\d+", "http://labels.example.com", text)
    text = re.sub(r"python-requests/[\d.]+", "python-requests/2.32.5", text)
    # In a git checkout it calls itself after the commit there.
    text = re.sub(r"heartex/[^\"]+", "heartex/1.23.2", text)
    text = re.sub(r'"unique_id": "[^"]*"', '"unique_id": "25e1bd27-e035-46ff-8d86-30dbf96456fd"', text)
    text = re.sub(r'"label_config_hash": -?\d+', '"label_config_hash": -4956497262884011129', text)
    text = re.sub(r'"created_ago": "[^"]*"', '"created_ago": "0 minutes"', text)
    return re.sub(r"[\w.+-]+@localhost\.test", "ann@example.com", text)


def record(root: Path) -> None:
    """Writes one file for each kind of request, and `steps.json`: what is called when."""
    found: dict[str, dict[str, Any]] = {}
    steps: dict[str, list[str]] = {}
    with Recorder().running() as recorder, EmbeddedLabelStudio(root, EXECUTABLE) as server:
        try:
            for step in led_through(server.client(), recorder):
                steps[step] = [f"{call['method']} {call['path']}" for call in recorder.calls]
                for call in recorder.calls:
                    found.setdefault(name_of(call, step), call)
                recorder.calls.clear()
        except LabelStudioError as error:
            sys.exit(f"after {list(steps)}: {error}")
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        for name, content in [*found.items(), ("steps", steps)]:
            text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=name != "steps")
            (FOLDER / f"{name}.json").write_text(scrubbed(text, server, recorder) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if template := os.environ.get("MAD_TEST_LABEL_STUDIO"):
            shutil.copytree(template, folder, dirs_exist_ok=True)
        record(Path(folder))
