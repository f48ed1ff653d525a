"""A pool of small images, models for it, and a Ray cluster of two nodes on this machine."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.records import PoolImage
from mad_backend.engines.base import ChunkResult, ChunkTask, ModelRecipe, WantedImage
from mad_backend.settings import ModelSettings
from tests.engines.stand_ins import TRACE
from tests.models.small_files import MEAN, STD, new_mixer, write_torchscript

LABELS = LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat", "dog")))
GRID = Grid(64)
CHUNK = 4
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
"""Of a Ray cluster."""
ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Pool:
    """24 images of 40 x 30 pixels; d/005 is broken, d/006 has no label map in the folder."""

    root: Path
    images: tuple[PoolImage, ...]

    def tasks(
        self, models: int, chunk: int = CHUNK, images: Sequence[PoolImage] | None = None
    ) -> list[ChunkTask]:
        wanted = [WantedImage(image, (None,) * models) for image in images or self.images]
        starts = range(0, len(wanted), chunk)
        return [ChunkTask(n, tuple(wanted[start : start + chunk])) for n, start in enumerate(starts)]

    def recipe(self, kind: str) -> ModelRecipe:
        """A model of label maps in a folder, by its kind or by the name of a stand-in."""
        path = self.root / "network.pt" if kind == "torchscript" else self.root / "maps"
        dotted = f"tests.engines.stand_ins:{kind}" if kind.istitle() else kind
        network = {"mean": MEAN, "std": STD} if kind == "torchscript" else {}
        if network:
            write_torchscript(path, new_mixer())
        settings = ModelSettings(kind=dotted, path=path, batch_size=3, **network)
        return ModelRecipe(kind, settings, LABELS, GRID)

    def trace(self) -> list[tuple[int, str]]:
        """(process, node) of every chunk so far that the stand-in Traced was asked about."""
        path = self.root / "maps" / TRACE
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), node) for pid, node in map(str.split, lines)]


def stable(results: Iterable[ChunkResult]) -> list[ChunkResult]:
    """Results without the time they took."""
    return [replace(result, model_s=0.0) for result in results]


def until(is_so: Callable[[], bool], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="package", autouse=True)
def _processes() -> Iterator[None]:
    """Those that engines start find the stand-ins, and have one thread: small networks only wait for their own."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", ROOT)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Read when ray is imported: all on loopback, as on macOS, not on the machine's own address.
        assert "ray" not in sys.modules
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.syspath_prepend(ROOT)
        yield
    torch.set_num_threads(before)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    rng = np.random.default_rng(0)
    images = []
    for n in range(24):
        image_id = f"d/{n:03d}"
        for folder, shape, top in (("photos", (30, 40, 3), 256), ("maps", (30, 40), 3)):
            path = tmp_path / folder / f"{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, top, shape, np.uint8)).save(path)
        images.append(PoolImage(image_id, str(tmp_path / "photos" / f"{image_id}.png")))
    (tmp_path / "photos/d/005.png").write_bytes(b"no image")
    (tmp_path / "maps/d/006.png").unlink()
    return Pool(tmp_path, tuple(images))


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """Two Ray nodes with one processor each, on loopback. A lost node is noticed within seconds."""
    try:
        from ray.cluster_utils import Cluster
    except ModuleNotFoundError:
        reason = "needs ray; pip install 'mad-segmentation[ray]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    health = {"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 4}
    system = {f"health_check_{name}": value for name, value in health.items()}
    # Sockets lie in it, whose paths must be short.
    with (
        tempfile.TemporaryDirectory(prefix="mad", dir="/tmp") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        head = {**NODE, "include_dashboard": False, "_system_config": system}
        started = Cluster(initialize_head=True, head_node_args=head)
        started.add_node(**NODE)
        yield started
        started.shutdown()
