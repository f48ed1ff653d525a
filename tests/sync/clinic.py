"""What tests of `mad doctor` share: a small project, `mad serve` for it, and proxies with which things go wrong."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask import Flask, Response, request
from PIL import Image
from pydantic import SecretStr

from mad_backend.serving.local_targets import LocalTargets
from mad_backend.serving.target_service import TargetService
from mad_backend.serving.task_images import TaskImageReader
from mad_backend.settings import Secrets, Settings
from mad_backend.settings_file import load_label_set
from mad_backend.store.store import Store
from mad_backend.web.app import create_app
from sync.doctor.examination import CHECKS, examine
from sync.doctor.findings import Finding, Verdict
from tests.conftest import RunningLabelStudio
from tests.sync.picture_hosts import running

LABEL_SET = Path(__file__).parents[2] / "configs" / "label_sets" / "scenes.yaml"
SECRET = "a webhook's s3cret"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Alter = Callable[[Response], None]


@dataclass(frozen=True)
class Clinic:
    """A project of one image, with its settings as they stand in a file and its secrets as in the environment."""

    root: Path
    store: Store
    raw: dict[str, Any]
    secrets: Secrets
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings.model_validate(self.raw))

    def with_settings(self, **sections: Any) -> "Clinic":
        """`section={key: value}` changes keys of a section, anything else replaces it."""
        changed = {
            name: {**self.raw.get(name, {}), **value} if isinstance(value, dict) else value
            for name, value in sections.items()
        }
        return replace(self, raw={**self.raw, **changed})

    def with_secrets(self, **secrets: Any) -> "Clinic":
        return replace(self, secrets=self.secrets.model_copy(update=secrets))

    def ask(self, *names: str) -> dict[str, list[Finding]]:
        """What the named checks find, and those they need; all without names."""
        wanted = [c for c in CHECKS if not names or c.name in names]
        if names:
            needed = {need for check in wanted for need in check.needs}
            wanted = [c for c in CHECKS if c.name in needed or c in wanted]
        found: dict[str, list[Finding]] = {}
        for line in examine(self.settings, self.secrets, lambda _: None, wanted):
            found.setdefault(line.name, []).append(line.finding)
        return found

    def wrong(self, name: str) -> Finding:
        """The one thing that the check `name` finds wrong."""
        found = self.ask(name)[name]
        (bad,) = [f for f in found if f.verdict is Verdict.WRONG]
        return bad

    def fine(self, name: str) -> None:
        """Asserts that the check `name` finds nothing to do."""
        found = self.ask(name)[name]
        assert {f.verdict for f in found} == {Verdict.OK}, found


def clinic(root: Path, store: Store, url: str, token: str) -> Clinic:
    """For the Label Studio at `url`; `store` is in `root` and has round 1."""
    images = root / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(images / "0.png")
    label_map = root / "f0" / "pool" / "0.png"
    label_map.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(label_map)
    folder = {"kind": "folder", "path": root / "f0"}
    raw: dict[str, Any] = {
        "workspace": root,
        "label_set": LABEL_SET,
        "pool": [{"name": "pool", "images": images}],
        "s0": [{"name": "s0", "images": images}],
        "t0": [{"name": "t0", "images": images}],
        "grid": {"size": 32},
        "models": {"name": "scenes", "target": folder, "competing": {"other": folder}},
        "label_studio": {"url": url},
    }
    store.versions.record("scenes@0", 0, None, datetime(2026, 1, 1, tzinfo=UTC))
    store.versions.promote("scenes@0", datetime(2026, 1, 1, tzinfo=UTC), "the first")
    secrets = Secrets(label_studio_token=SecretStr(token), webhook_secret=SecretStr(SECRET))
    return Clinic(root, store, raw, secrets)


@contextmanager
def serving(
    there: Clinic, store: Store | None = None, host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """`mad serve` for the project, on loopback; yields its address."""
    used = store or there.store
    labels = load_label_set(there.settings.label_set)
    images = TaskImageReader(there.settings, there.secrets, used.remote.sign)
    with (
        closing(LocalTargets(used, there.settings, labels)) as targets,
        closing(TargetService(used, there.settings, targets, images)) as service,
    ):
        app = create_app(service, used, there.settings, there.secrets)
        with running(app, host, port) as url:
            yield url


@contextmanager
def proxy(target: str, refuse: Callable[[], Response | None], alter: Alter) -> Iterator[str]:
    """In front of `target`: `refuse` may answer in its place, `alter` changes its answers."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = None
    session = requests.Session()
    session.trust_env = False

    @app.route("/", defaults={"path": ""}, methods=METHODS)
    @app.route("/<path:path>", methods=METHODS)
    def forward(path: str) -> Response:
        refused = refuse()
        if refused is not None:
            return refused
        sent = {k: v for k, v in request.headers if k.lower() not in ("host", "content-length", "connection")}
        answer = session.request(
            request.method,
            f"{target}/{path}",
            params=request.args,
            headers=sent,
            data=request.get_data(),
            allow_redirects=False,
            timeout=60,
        )
        dropped = ("connection", "transfer-encoding", "content-encoding", "content-length", "server")
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in dropped}
        response = Response(answer.content, answer.status_code, kept)
        alter(response)
        return response

    with session, running(app) as url:
        yield url


def untouched(_response: Response) -> None:
    """For a proxy that only refuses."""


def nothing_refused() -> None:
    """For a proxy that only alters."""


def is_empty(folder: Path) -> bool:
    return not folder.exists() or not any(folder.iterdir())


@pytest.fixture
def there(tmp_path: Path, store: Store, label_studio: RunningLabelStudio) -> Clinic:
    return clinic(tmp_path, store, label_studio.server.url, label_studio.server.token)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
