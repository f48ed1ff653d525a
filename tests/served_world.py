"""A small project as the web process finds it: pool, target as folders of label maps, pushed tasks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.label_config import segmentation_config
from mad_backend.serving.local_targets import LocalTargets
from mad_backend.serving.target_service import PredictRequest, TargetService
from mad_backend.serving.targets import Targets
from mad_backend.serving.task_images import TaskImageReader
from mad_backend.settings import Secrets, Settings
from mad_backend.settings_file import load_label_set
from mad_backend.store.store import Store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LABEL_SET = Path(__file__).parents[1] / "configs" / "label_sets" / "scenes.yaml"
CONFIG = segmentation_config(load_label_set(LABEL_SET))
"""The label configuration of our own segmentation projects."""
HEIGHT, WIDTH = 40, 60
LABEL_STUDIO_TASK = {
    "meta": {},
    "project": 19,
    "is_labeled": False,
    "overlap": 1,
    "inner_id": 1,
    "total_annotations": 0,
    "cancelled_annotations": 0,
    "total_predictions": 0,
    "comment_count": 0,
    "file_upload": None,
    "annotations": [],
    "predictions": [],
}
"""What Label Studio 1.23.2 sends of a task, besides `id` and `data`."""


@dataclass
class World:
    """Images "pool/0" to "pool/4"; version scenes@0 says class 1 in the left half, scenes@1 class 2."""

    root: Path
    store: Store
    settings: Settings
    labels: LabelSet
    grid: Grid = field(default_factory=lambda: Grid(32))

    def add_image(self, stem: str) -> str:
        pixels = np.random.default_rng(len(stem)).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(self.root / "images" / f"{stem}.png")
        for folder, class_id in (("f0", 1), ("f1", 2)):
            path = self.root / folder / "pool" / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(half_map(class_id)).save(path)
        return f"pool/{stem}"

    def push(self, image_ids: list[str]) -> None:
        for role in ProjectRole:
            self.store.remote.record_tasks(1, role, {i: n for n, i in enumerate(image_ids, start=1)})

    def task(
        self, image_id: str, task_id: int = 311, role: ProjectRole = ProjectRole.SEGMENTATION
    ) -> dict[str, Any]:
        item = self.store.remote.item_key(1, role, image_id)
        data = {"image": f"/data/upload/19/{item}-a.jpg", "item": item}
        return {"id": task_id, "data": data, **LABEL_STUDIO_TASK}

    def restored(self, class_id: int) -> LabelMap:
        """What a half map is after its way over the grid."""
        return self.grid.restore(self.grid.label_map(half_map(class_id)), HEIGHT, WIDTH)

    def with_target(self, **target: Any) -> Settings:
        """The settings with another target."""
        models = self.settings.models
        changed = models.model_copy(update={"target": models.target.model_copy(update=target)})
        return self.settings.model_copy(update={"models": changed})


def asking(tasks: Sequence[Any]) -> PredictRequest:
    """What Label Studio asks for `tasks` of one of our segmentation projects."""
    return PredictRequest(tasks, CONFIG)


def half_map(class_id: int) -> LabelMap:
    label_map = np.zeros((HEIGHT, WIDTH), np.uint8)
    label_map[:, : WIDTH // 2] = class_id
    return label_map


def make_world(root: Path, store: Store) -> World:
    """In an empty folder; `store` has round 1."""
    (root / "images").mkdir()
    folder = {"kind": "folder", "path": root / "f0"}
    settings = Settings.model_validate(
        {
            "workspace": root,
            "label_set": LABEL_SET,
            "pool": [{"name": "pool", "images": root / "images"}],
            "s0": [{"name": "s0", "images": root / "images"}],
            "t0": [{"name": "t0", "images": root / "images"}],
            "grid": {"size": 32},
            "models": {"name": "scenes", "target": folder, "competing": {"other": folder}},
        }
    )
    made = World(root, store, settings, load_label_set(LABEL_SET))
    made.push([made.add_image(str(n)) for n in range(5)])
    store.versions.record("scenes@0", 0, None, NOW)
    store.versions.record("scenes@1", 1, str(root / "f1"), NOW)
    store.versions.promote("scenes@0", NOW, "the first")
    return made


@pytest.fixture
def world(tmp_path: Path, store: Store) -> World:
    return make_world(tmp_path, store)


@pytest.fixture
def open_service(world: World) -> Iterator[Callable[..., TargetService]]:
    """Opens services, of `world.settings` and with the model in this process unless told otherwise; closes all."""
    with ExitStack() as opened:

        def _open(
            settings: Settings | None = None, store: Store | None = None, targets: Targets | None = None
        ) -> TargetService:
            used, kept = settings or world.settings, store or world.store
            asked = targets or LocalTargets(kept, used, world.labels)
            opened.callback(asked.close)
            images = TaskImageReader(used, Secrets(), kept.remote.sign)
            service = TargetService(kept, used, asked, images)
            opened.callback(service.close)
            return service

        yield _open


@pytest.fixture
def service(open_service: Callable[..., TargetService]) -> TargetService:
    return open_service()
