"""A project in a folder of its own, `mad serve` for it, and a client that asks as Label Studio does."""

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from PIL import Image

from benchmarks.figure import DATA
from mad_backend.core.grid import Grid
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.label_config import segmentation_config
from mad_backend.pool.ids import content_digest
from mad_backend.pool.predictions import EncodedMap, PredictionStore, StoredMap
from mad_backend.settings import Settings
from mad_backend.settings_file import load_label_set
from mad_backend.store.store import Store
from mad_backend.targets import target_key

LABEL_SET = Path(__file__).parents[1] / "configs" / "label_sets" / "voc.yaml"
LABELS = load_label_set(LABEL_SET)
CONFIG = segmentation_config(LABELS)
NETWORK = DATA / "models" / "hf" / "deeplabv3_mnv2_050"
VOC = DATA / "voc"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_START_S = 120.0
_STOP_S = 30.0


@dataclass(frozen=True)
class Project:
    """Photos in `root`/photos; those of `stems` are the pool, scanned with human maps in place of the model's."""

    root: Path
    stems: tuple[str, ...]
    config: Path
    items: tuple[str, ...]

    def photo_tasks(self, stems: Sequence[str]) -> list[dict[str, Any]]:
        """Of another team's project, whose tasks name files."""
        return [
            {"id": n, "data": {"image": str(self.root / "others" / f"{s}.jpg")}} for n, s in enumerate(stems)
        ]

    def pool_tasks(self) -> list[dict[str, Any]]:
        return [
            {"id": n, "data": {"image": "/data/upload/1/a.jpg", "item": i}} for n, i in enumerate(self.items)
        ]


@contextmanager
def project(
    count: int, batch_size: int, size: tuple[int, int] = (500, 375), **serve: Any
) -> Iterator[Project]:
    """Of `count` photos of `size` (width, height), in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        masks = sorted((VOC / "SegmentationClass").glob("*.png"))[:count]
        for name in ("photos", "others"):  # copies: what lies at a pool image's address is a pool image
            (root / name).mkdir()
            for mask in masks:
                with Image.open(VOC / "JPEGImages" / f"{mask.stem}.jpg") as photo:
                    photo.resize(size).save(root / name / f"{mask.stem}.jpg", quality=90)
        images = {"images": str(root / "photos")}
        target = {"kind": "hf", "path": str(NETWORK), "align_corners": True, "batch_size": batch_size}
        raw = {
            "workspace": str(root),
            "label_set": str(LABEL_SET),
            **{source: [{"name": source, **images}] for source in ("pool", "s0", "t0")},
            "models": {"name": "net", "target": target, "competing": {"other": target}},
            "serve": {"port": 0, "images": {"roots": [str(root / "others")]}, "cache_bytes": 0, **serve},
        }
        config = root / "mad.yaml"
        config.write_text(json.dumps(raw), encoding="utf-8")
        stems = tuple(mask.stem for mask in masks)
        with closing(Store(Settings.model_validate(raw).database_url)) as store:
            items = _recorded(store, Settings.model_validate(raw), masks)
        yield Project(root, stems, config, items)


def _recorded(store: Store, settings: Settings, masks: Sequence[Path]) -> tuple[str, ...]:
    """Promotes f(0), pushes the pool, and stores a scan of it; item keys of the pool's images."""
    now, grid = datetime(2026, 1, 1, tzinfo=UTC), Grid(settings.grid.size, settings.grid.fit)
    store.rounds.create(1, 7, now)
    store.versions.record("net@0", 0, None, now)
    store.versions.promote("net@0", now, "the first")
    ids = {f"pool/{mask.stem}": mask for mask in masks}
    store.remote.record_tasks(1, ProjectRole.SEGMENTATION, {image_id: n for n, image_id in enumerate(ids)})
    promoted = store.versions.promoted()
    assert promoted
    packs = PredictionStore((settings.cache or settings.workspace) / "predictions")
    with packs.open(target_key(promoted, settings, LABELS, grid), writable=True) as pack:
        for image_id, mask in ids.items():
            photo = settings.workspace / "photos" / f"{mask.stem}.jpg"
            with Image.open(photo) as image, Image.open(mask) as drawn:
                label_map = np.asarray(drawn.resize(image.size, Image.Resampling.NEAREST))
            encoded = EncodedMap.of(grid.label_map(label_map))
            pack.append([StoredMap(image_id, content_digest(photo.read_bytes()), encoded)])
    return tuple(store.remote.item_key(1, ProjectRole.SEGMENTATION, image_id) for image_id in ids)


class Client:
    """One connection, kept open; used by one thread."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def predict(self, tasks: Sequence[dict[str, Any]]) -> int:
        """How many of the tasks got regions; raises AssertionError for any answer but 200, one result a task."""
        params = {"login": None, "password": None, "context": None}
        body = {"tasks": list(tasks), "project": "1.1", "label_config": CONFIG, "params": params}
        status, answer = self.ask("POST", "/predict", body)
        assert status == 200, (status, answer[:200])
        results = json.loads(answer)["results"]
        assert len(results) == len(tasks)
        return sum(bool(result["result"]) for result in results)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()


@contextmanager
def served(command: Sequence[str | Path]) -> Iterator[tuple[int, psutil.Process]]:
    """(port, process) of a server that logs "http://127.0.0.1:<port>" and answers /health once it can."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | ONE_THREAD)
        try:
            port = _port(process, log)
            _wait_for_health(port)
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def mad_serve(there: Project) -> list[str | Path]:
    """The command."""
    return [sys.executable, "-m", "training.cli", "serve", "--config", there.config]


def _port(process: subprocess.Popen[bytes], log: Any) -> int:
    for _ in range(int(_START_S * 10)):
        log.seek(0)
        _, found, rest = log.read().replace("\n", "").partition("http://127.0.0.1:")
        digits = "".join(c for c in rest[:6] if c.isdigit())
        if found and digits:
            return int(digits)
        if process.poll() is not None:
            break
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(f"the server did not start: {log.read()[-2000:]}")


def _wait_for_health(port: int) -> None:
    """Until the model is there, too."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        try:
            with Client(port) as client:
                status, answer = client.ask("GET", "/health")
            if status == 200 and json.loads(answer).get("state", "ready") == "ready":
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the server does not become ready")
