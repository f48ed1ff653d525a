"""Three hundred small photos, `mad serve` for them, and two projects of a real Label Studio that ask it."""

import base64
import io
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from pydantic import SecretStr

from mad_backend.core.labels import LabelMap, RgbImage
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.brush_rle import decode_alpha
from mad_backend.label_studio.label_config import segmentation_config
from mad_backend.settings import Secrets, Settings
from mad_backend.settings_file import load_label_set
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.connect_project import connect_project
from sync.ml_backends import TITLE, served_at
from tests.conftest import RunningLabelStudio
from tests.sync.clinic import free_port
from training.processes import start_mad, stop

LABEL_SET = Path(__file__).parents[2] / "configs" / "label_sets" / "scenes.yaml"
LABELS = load_label_set(LABEL_SET)
CONFIG = segmentation_config(LABELS)
HINT = "Zeichne die Dinge nach."
FOREIGN = """\
<View>
  <Image name="bild" value="$foto"/>
  <BrushLabels name="maske" toName="bild" opacity="0.6">
    <Label value="Haus" predicted_values="house" background="#b5523a"/>
    <Label value="Baum" predicted_values="tree" background="#2e8b3d"/>
    <Label value="Auto" predicted_values="car" background="#2f6fd6"/>
    <Label value="Mensch" predicted_values="person" background="#e8489a"/>
  </BrushLabels>
</View>
"""
GERMAN = {"Haus": 1, "Baum": 2, "Auto": 3, "Mensch": 4}
TASKS, PHOTOS = 300, 6
VERSIONS = {"scenes@0": (1, 2), "scenes@1": (3, 4)}
"""Version -> class of what is dark and of what is bright."""
PASSWORD, USER = "serve-pass-1", "mad"
WAIT_S = 60.0
MODEL = """
import numpy as np
from mad_backend.models.base import SegmentationModel

class TwoClasses(SegmentationModel):
    def __init__(self, name, settings, labels, grid):
        super().__init__(name, settings, labels, grid, labels.names)
        self.dark, self.bright = map(int, settings.required_path.read_text().split())

    @classmethod
    def files(cls, settings):
        return [settings.required_path]

    def predict(self, frames):
        ids = [np.where(frame.rgb.mean(2) > 128, self.bright, self.dark) for frame in frames]
        return [self.table[found.astype(np.uint8)] for found in ids]
"""


KNOWN = {version: {LABELS.names[class_id] for class_id in ids} for version, ids in VERSIONS.items()}
"""Version -> labels that its predictions for our project may have."""


def picture(number: int, height: int, width: int) -> RgbImage:
    """Blocks of a sixth of the width, each either dark or bright."""
    rng = np.random.default_rng(number)
    cells = np.where(rng.random((6, 6)) < 0.5, 40, 210)
    rows, columns = np.indices((height, width))
    grey = cells[rows * 6 // height, columns * 6 // width].astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def expected(rgb: RgbImage, version: str) -> LabelMap:
    dark, bright = VERSIONS[version]
    return np.where(rgb[..., 0] > 128, bright, dark).astype(np.uint8)


def drawn(regions: list[dict[str, Any]], names: Mapping[str, int]) -> LabelMap:
    """What the regions of a prediction cover, as class ids; they do not overlap."""
    size = regions[0]["original_height"], regions[0]["original_width"]
    found = np.zeros(size, np.uint8)
    for region in regions:
        value = region["value"]
        if region["type"] == "bitmasklabels":
            data = base64.b64decode(value["imageDataURL"].partition(",")[2])
            with Image.open(io.BytesIO(data)) as opened:
                mask = np.asarray(opened.convert("RGBA"))[..., 3] > 0
        else:
            mask = decode_alpha(value["rle"], *size) > 0
        assert not found[mask].any()
        found[mask] = names[value[region["type"]][0]]
    return found


def labels_of(regions: list[dict[str, Any]]) -> set[str]:
    return {region["value"][region["type"]][0] for region in regions}


@dataclass
class World:
    """Label Studio with two connected projects, one of ours of `TASKS` pool images and one of another team's uploads.

    `mad serve` of these settings runs at `url`, with a password.
    """

    root: Path
    store: Store
    settings: Settings
    secrets: Secrets
    label_studio: RunningLabelStudio
    url: str
    ours: int = 0
    theirs: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    pictures: dict[str, RgbImage] = field(default_factory=dict)
    """Address in the task -> what is there."""

    @property
    def admin(self) -> LabelStudioClient:
        return self.label_studio.admin

    def promote(self, version: str) -> None:
        self.store.versions.promote(version, datetime.now(UTC), "story")

    @property
    def log(self) -> str:
        """What `mad serve` has said."""
        return "".join(path.read_text() for path in sorted(self.root.glob("serve-*.log")))

    def serve(self) -> None:
        """Starts `mad serve` and waits until it answers."""
        log = self.root / f"serve-{len(list(self.root.glob('serve-*.log')))}.log"
        environment = {
            "PYTHONPATH": str(self.root),
            "MAD_LABEL_STUDIO_TOKEN": self.label_studio.server.token,
            "MAD_SERVE_PASSWORD": PASSWORD,
        }
        self.process = start_mad(["serve", "--config", str(self.root / "mad.yaml")], log, environment)
        wait_for(lambda: "serving scenes on" in log.read_text(), log.read_text, self.process)

    def ask(self, path: str, body: Any = None) -> requests.Response:
        """`mad serve` itself."""
        return requests.post(f"{self.url}{path}", json=body or {}, auth=(USER, PASSWORD), timeout=30)

    def served(self) -> str:
        return str(self.ask("/setup").json()["model_version"])

    def next_task(self, rater: int, project_id: int) -> dict[str, Any]:
        """What the label stream opens, asked once."""
        headers = {"Authorization": f"Token {self.label_studio.tokens[rater]}"}
        url = f"{self.admin.url}/api/projects/{project_id}/next"
        answer = requests.get(url, headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text[:500]
        found: dict[str, Any] = answer.json()
        return found

    def opened(self, project_id: int, task_id: int) -> dict[str, Any]:
        """A task as the Data Manager opens it."""
        path = f"/api/tasks/{task_id}/?project={project_id}"
        found: dict[str, Any] = self.admin.get(path, "opening a task")
        return found

    def retrieve(self, project_id: int) -> None:
        """The action "Retrieve Predictions" on all tasks."""
        path = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project_id}"
        body = {"selectedItems": {"all": True, "excluded": []}}
        self.admin.send("POST", path, "retrieving predictions", body)

    def tasks(self, project_id: int) -> list[dict[str, Any]]:
        params = {"project": project_id, "fields": "all", "resolve_uri": "false"}
        return list(self.admin.pages("/api/tasks/", "listing tasks", params, "tasks"))

    def picture_of(self, task: dict[str, Any]) -> RgbImage:
        return self.pictures[task["data"].get("foto") or task["data"]["image"]]


def wait_for(is_so: Callable[[], bool], told: Callable[[], str], process: Any = None) -> None:
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end, told()
        assert process is None or process.poll() is None, told()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world(label_studio: RunningLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("story")
    (root / "images").mkdir()
    (root / "two_classes.py").write_text(MODEL)
    for version, classes in VERSIONS.items():
        (root / f"{version}.txt").write_text("{} {}".format(*classes))
    port = free_port()
    target = {"kind": "two_classes:TwoClasses", "path": str(root / "scenes@0.txt")}
    raw = {
        "workspace": str(root),
        "label_set": str(LABEL_SET),
        "pool": [{"name": "pool", "images": str(root / "images")}],
        "s0": [{"name": "s0", "images": str(root / "images")}],
        "t0": [{"name": "t0", "images": str(root / "images")}],
        "grid": {"size": 512},
        "models": {"name": "scenes", "target": target, "competing": {"other": target}},
        "label_studio": {"url": label_studio.server.url},
        "serve": {"port": port, "public_url": f"http://127.0.0.1:{port}", "user": USER},
    }
    (root / "mad.yaml").write_text(json.dumps(raw))
    settings = Settings.model_validate(raw)
    secrets = Secrets(serve_password=SecretStr(PASSWORD), webhook_secret=None)
    with closing(Store(settings.database_url)) as store:
        now = datetime(2026, 1, 1, tzinfo=UTC)
        store.rounds.create(1, 7, now)
        store.versions.record("scenes@0", 0, None, now)
        store.versions.record("scenes@1", 1, str(root / "scenes@1.txt"), now)
        made = World(root, store, settings, secrets, label_studio, f"http://127.0.0.1:{port}")
        made.promote("scenes@0")
        fill(made)
        yield made
        for project_id in (made.ours, made.theirs):
            made.admin.delete_project(project_id)


def fill(world: World) -> None:
    """Pool, projects and tasks."""
    admin, store = world.admin, world.store
    ids = {}
    for n in range(TASKS):
        world.pictures[f"/{n}.png"] = picture(n, 48, 64)
        Image.fromarray(world.pictures[f"/{n}.png"]).save(world.root / "images" / f"{n:03}.png")
        ids[f"pool/{n:03}"] = n + 1
    store.remote.record_tasks(1, ProjectRole.SEGMENTATION, ids)
    keys = [store.remote.item_key(1, ProjectRole.SEGMENTATION, image_id) for image_id in ids]
    world.ours = admin.create_project(title="ours", label_config=CONFIG).project_id
    admin.import_tasks(
        world.ours, [{"data": {"image": f"/{n}.png", "item": key}} for n, key in enumerate(keys)]
    )
    theirs = {"expert_instruction": HINT, "show_instruction": True, "maximum_annotations": 4}
    world.theirs = admin.create_project(title="theirs", label_config=FOREIGN, **theirs).project_id
    photos = {}
    for n in range(PHOTOS):
        file = io.BytesIO()
        Image.fromarray(picture(1000 + n, 375, 500)).save(file, format="PNG")
        photos[f"{n}.png"] = file.getvalue()
    for name, address in admin.upload(world.theirs, photos).items():
        world.pictures[address] = picture(1000 + int(name.removesuffix(".png")), 375, 500)
        admin.import_tasks(world.theirs, [{"data": {"foto": address}}])


@pytest.fixture(scope="module")
def running(world: World, label_studio: RunningLabelStudio) -> Iterator[World]:
    """With `mad serve` running, connected to both projects."""
    world.serve()
    try:
        for project_id in (world.ours, world.theirs):
            served = served_at(world.settings, world.secrets)
            made = connect_project(
                world.admin, world.store, world.settings, world.secrets, LABELS, project_id, served, TITLE
            )
            assert (made.is_live, made.backend.state) == (True, "CO")
        yield world
    finally:
        assert world.process
        stop(world.process)
    assert not re.search(f"{PASSWORD}|{label_studio.server.token}", world.log)
