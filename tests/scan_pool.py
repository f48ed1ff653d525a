"""A small pool of photos and three models for it that need no runtime: two folders of label maps, and a rule."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.core.records import Frame, PoolImage
from mad_backend.engines.local import LocalEngine
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import load_model
from mad_backend.pool.files import etag_of
from mad_backend.pool.ledger import Ledger
from mad_backend.pool.predictions import PredictionStore
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.scores import ScoreStore
from mad_backend.scan import ScanReport, ScanStores, scan
from mad_backend.settings import ModelSettings

LABELS = LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat", "dog")))
GRID = Grid(16)
READ = PoolReader().read


class Brightest(SegmentationModel):
    """Answers which channel is the brightest; its maps depend on the pixels, as those of a network do."""

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        super().__init__(name, settings, labels, grid, labels.names)

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return ()

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        return [frame.rgb.argmax(axis=2).astype(np.uint8) for frame in frames]


def write_pool(root: Path, count: int) -> None:
    """`count` photos of 20 x 10 pixels, and label maps of f and g for each."""
    rng = np.random.default_rng(0)
    for n in range(count):
        for folder, shape, top in (("photos", (10, 20, 3), 256), ("f", (10, 20), 3), ("g", (10, 20), 3)):
            path = root / folder / "d" / f"{n:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, top, shape, np.uint8)).save(path)


def pool_of(root: Path) -> list[PoolImage]:
    return [
        PoolImage(f"d/{path.stem}", str(path), etag_of(path))
        for path in sorted((root / "photos" / "d").glob("*.png"))
    ]


def model(name: str, root: Path) -> SegmentationModel:
    """f and g by their folders, anything else by the rule."""
    if name in ("f", "g"):
        return load_model(name, ModelSettings(kind="folder", path=root / name), LABELS, GRID)
    return load_model(name, ModelSettings(kind="tests.scan_pool:Brightest"), LABELS, GRID)


def stores(out: Path) -> ScanStores:
    return ScanStores(PredictionStore(out / "maps"), ScoreStore(out / "scores"), Ledger(out / "ledger"))


def scan_all(root: Path, out: Path, chunk: int = 8, block: int = 32) -> ScanReport:
    """Target: the rule; competitors: f and g."""
    models = [model(name, root) for name in ("f", "g", "rule@0")]
    return scan(
        pool_of(root),
        models[2],
        models[:2],
        stores(out),
        lambda: LocalEngine(models, GRID, READ, 2),
        len(LABELS),
        chunk,
        block=block,
    )


def files_of(out: Path) -> dict[str, bytes]:
    """Every file of the stores by name."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
