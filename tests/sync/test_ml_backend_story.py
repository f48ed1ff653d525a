"""A real Label Studio and a real `mad serve`: predictions for 300 tasks, a hot swap under load, a rollback, a crash."""

import base64
import io
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page
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
from sync.ml_backends import TITLE, backends, served_at, stored_predictions
from tests.conftest import RunningLabelStudio
from tests.sync import test_screens
from tests.sync.clinic import free_port
from tests.sync.test_screens import open_stream, picture_places, wait_for_color
from training.processes import start_mad, stop

browser, page, shots = test_screens.browser, test_screens.page, test_screens.shots

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


def check(world: World, task: dict[str, Any], version: str, names: Mapping[str, int]) -> None:
    """One prediction of `version`, which says what the model says."""
    (found,) = [p for p in task["predictions"] if p["model_version"] == version]
    assert np.array_equal(drawn(found["result"], names), expected(world.picture_of(task), version))


OURS = {name: n for n, name in enumerate(LABELS.names)}


def test_300_tasks_have_one_prediction_each_of_what_the_model_says(running: World) -> None:

    running.retrieve(running.ours)
    tasks = running.tasks(running.ours)
    assert [len(task["predictions"]) for task in tasks] == [1] * TASKS
    for task in tasks:
        check(running, task, "scenes@0", OURS)
    # What is there already is not asked for again.
    running.retrieve(running.ours)
    assert stored_predictions(running.admin, running.ours) == {"scenes@0": TASKS}


def test_another_team_s_uploads_are_answered_in_their_own_labels(running: World) -> None:
    first = running.tasks(running.theirs)[0]
    opened = running.opened(running.theirs, first["id"])
    check(running, opened, "scenes@0", GERMAN)
    assert {r["from_name"] for r in opened["predictions"][0]["result"]} == {"maske"}
    assert {r["to_name"] for r in opened["predictions"][0]["result"]} == {"bild"}
    check(running, running.next_task(1, running.theirs), "scenes@0", GERMAN)
    running.retrieve(running.theirs)
    for task in running.tasks(running.theirs):
        assert len(task["predictions"]) == 1
        check(running, task, "scenes@0", GERMAN)


def test_an_annotator_sees_the_prediction(running: World, page: Page, shots: Path) -> None:
    open_stream(page, running.label_studio, running.theirs, HINT)
    (place,) = picture_places(page, 1)
    task = running.next_task(0, running.theirs)
    rgb = running.picture_of(task)
    said = expected(rgb, running.served())
    for class_id, column, row in ((said[30, 40], 40, 30), (said[340, 460], 460, 340)):
        color, grey = np.array(LABELS.classes[class_id].color), rgb[row, column]
        wait_for_color(page, place, column, row, tuple((0.6 * color + 0.4 * grey).astype(int).tolist()))
    page.screenshot(path=shots / "ml-backend.png")


@dataclass
class Load:
    """What came back to each thread, in order: an answer's version; `failed` has the answers that were none."""

    predicted: list[str] = field(default_factory=list)
    predicted_beside: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def answers(self) -> list[list[str]]:
        return [self.predicted, self.predicted_beside, self.named, self.opened]


@contextmanager
def under_load(world: World) -> Iterator[Load]:
    """Threads that ask `mad serve` for predictions and versions, and Label Studio for tasks, one after the other."""
    load, ended = Load(), threading.Event()
    body = {
        "tasks": [{"id": t["id"], "data": t["data"]} for t in world.tasks(world.ours)[:5]],
        "label_config": CONFIG,
    }

    def predict(told: list[str]) -> None:
        results = world.ask("/predict", body).json()["results"]
        versions = {r["model_version"] for r in results}
        assert (len(results), len(versions)) == (5, 1), versions
        for result in results:
            assert labels_of(result["result"]) <= KNOWN[result["model_version"]]
            assert result["result"]
        told.extend(versions)

    def setup() -> None:
        load.named.append(world.served())
        time.sleep(0.01)

    def open_ours() -> None:
        found = world.next_task(2, world.ours)["predictions"]
        (version,) = {p["model_version"] for p in found}
        assert all(labels_of(p["result"]) <= KNOWN[version] for p in found)
        load.opened.append(version)

    def go_on(work: Callable[[], None]) -> None:
        while not ended.is_set():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whatever failed is what the test wants to know
                load.failed.append(repr(error))

    works = (partial(predict, load.predicted), partial(predict, load.predicted_beside), setup, open_ours)
    threads = [threading.Thread(target=go_on, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        ended.set()
        for thread in threads:
            thread.join(WAIT_S)


def grows(answers: list[str], by: int, version: str) -> Callable[[], bool]:
    """Whether `by` more answers have come, the last of them of `version`."""
    begin = len(answers)
    return lambda: len(answers) >= begin + by and answers[-1] == version


def test_a_hot_swap_and_a_rollback_fail_no_request_and_mix_no_versions(running: World) -> None:
    with under_load(running) as load:
        for version in ("scenes@1", "scenes@0"):
            running.promote(version)
            wait_for(lambda v=version: running.served() == v, lambda: str(load))
            # What /setup names, answers have from now on.
            answer = running.ask("/predict", {"tasks": [{"id": 1, "data": {}}], "label_config": CONFIG})
            assert {r["model_version"] for r in answer.json()["results"]} == {version}
            for answers in load.answers:
                wait_for(grows(answers, 3, version), lambda: str(load))
    assert load.failed == []
    for answers in load.answers:
        changes = [b for a, b in zip(["", *answers], answers, strict=False) if a != b]
        assert changes in (["scenes@0", "scenes@1", "scenes@0"], ["scenes@1", "scenes@0"])


def test_label_studio_predicts_anew_what_is_opened_after_a_promotion(running: World) -> None:
    for version in ("scenes@0", "scenes@1"):
        running.promote(version)
        wait_for(lambda v=version: running.served() == v, lambda: running.log)
        task = running.next_task(3, running.ours)
    assert {p["model_version"] for p in task["predictions"]} == {"scenes@1"}
    check(running, task, "scenes@1", OURS)
    (backend,) = backends(running.admin, running.ours)
    assert backend.model_version == "scenes@1"
    project = running.admin.project(running.ours)
    assert project
    assert project.model_version == TITLE
    stored = running.opened(running.ours, task["id"])["predictions"]
    assert {p["model_version"] for p in stored} == {"scenes@0", "scenes@1"}


def test_a_killed_backend_leaves_tasks_open_and_is_back_after_its_restart(running: World) -> None:
    version, killed = running.served(), running.process
    assert running.next_task(1, running.theirs)["predictions"]
    assert killed
    killed.kill()
    killed.wait()
    wait_for(lambda: not answers_at(running.url), lambda: "a web worker outlives its supervisor")
    began = time.monotonic()
    task = running.next_task(1, running.theirs)
    assert task["predictions"] == []
    assert running.opened(running.theirs, task["id"])["id"] == task["id"]
    assert time.monotonic() - began < WAIT_S / 4
    assert [b.state for b in backends(running.admin, running.theirs)] == ["DI"]
    running.serve()
    assert [b.state for b in backends(running.admin, running.theirs)] == ["CO"]
    check(running, running.next_task(1, running.theirs), version, GERMAN)


def answers_at(url: str) -> bool:
    try:
        requests.get(f"{url}/health", timeout=2)
    except requests.ConnectionError:
        return False
    return True
