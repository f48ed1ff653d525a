"""The scan of real photos end to end on this machine's CPU: from files to scores that M can be chosen from."""

import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figure import DATA, print_absent, print_figure
from mad_backend.core.grid import Grid
from mad_backend.core.records import PoolImage
from mad_backend.engines.local import LocalEngine
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.pool.files import etag_of
from mad_backend.pool.ledger import Ledger
from mad_backend.pool.predictions import PredictionStore
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.scores import ScoreStore
from mad_backend.scan import ScanStores, scan
from mad_backend.settings import ModelSettings
from mad_backend.settings_file import load_label_set

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = ("segformer", "fpn", "fastscnn")
"""The demo's mmsegmentation models, the last as the target."""
GRID = Grid(513)
PHOTOS, REPEATS = 32, 5
LABELS = load_label_set(CONFIGS / "label_sets" / "scenes.yaml")


def main() -> None:
    """VOC photos of 500 x 375 at their own size; wall time, both sides in turn, so that a busy machine hits both."""
    import torch

    folder = DATA / "voc" / "JPEGImages"
    if not folder.is_dir():
        print_absent("scan", DATA)
        return
    many = [
        PoolImage(f"voc/{p.stem}", str(p), etag_of(p)) for p in sorted(folder.glob("*.jpg"))[: 3 * PHOTOS]
    ]
    images = many[:PHOTOS]
    models = [load_model(name, settings(name), LABELS, GRID) for name in NAMES]
    peers = [mmseg_peer(name) for name in NAMES]
    ours, theirs = in_turn(lambda: first_scan(images, models), lambda: peer_scan(images, peers))
    print_figure(
        "scan, three models, decode to scores",
        "images/s",
        len(images) / ours,
        len(images) / theirs,
        "mmseg.apis.inference_model and scikit-learn confusion_matrix",
        2.5,
    )
    rescan(images, models)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    own_share(many, models)  # more of them, since opening and closing stores is not the work of one image
    torch.set_num_threads(before)


def settings(name: str) -> ModelSettings:
    """Frames at their own size, as inference_model takes them."""
    return ModelSettings(
        kind="mmseg",
        config=CONFIGS / "mmseg" / f"scenes_{name}.py",
        path=CONFIGS / "mmseg" / "weights" / f"scenes_{name}.safetensors",
        fit="keep",
        batch_size=8,
    )


@contextmanager
def fresh_stores() -> Iterator[ScanStores]:
    """Empty stores in a folder that goes away."""
    root = Path(tempfile.mkdtemp())
    try:
        yield stores_in(root)
    finally:
        shutil.rmtree(root)


def stores_in(root: Path) -> ScanStores:
    """The stores of a scan in one folder."""
    return ScanStores(PredictionStore(root / "maps"), ScoreStore(root / "scores"), Ledger(root / "ledger"))


def scan_with(
    images: Sequence[PoolImage],
    models: Sequence[SegmentationModel],
    stores: ScanStores,
    threads: int | None = None,
) -> float:
    """Seconds of one scan; the last model is the target."""
    began = time.perf_counter()
    scan(
        images,
        models[-1],
        models[:-1],
        stores,
        lambda: LocalEngine(models, GRID, PoolReader().read, threads),
        len(LABELS),
    )
    return time.perf_counter() - began


def first_scan(images: Sequence[PoolImage], models: Sequence[SegmentationModel]) -> float:
    """Seconds of a scan that finds nothing done."""
    with fresh_stores() as stores:
        return scan_with(images, models, stores)


def mmseg_peer(name: str) -> Any:
    """The same model by mmsegmentation's own API."""
    from mad_backend.models.mmseg_model import quietly

    with quietly():
        from mmengine.config import Config
        from mmseg.apis import init_model
        from safetensors.torch import load_file

        config = Config.fromfile(CONFIGS / "mmseg" / f"scenes_{name}.py")
        config.test_pipeline = [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]
        config.model.data_preprocessor.pop("size", None)
        config.model.data_preprocessor["test_cfg"] = {"size_divisor": 1}
        model = init_model(config, device="cpu")
    model.load_state_dict(load_file(CONFIGS / "mmseg" / "weights" / f"scenes_{name}.safetensors"))
    return model


def peer_scan(images: Sequence[PoolImage], models: Sequence[Any]) -> float:
    """Seconds for the same photos, models and pairs as one would with the two libraries."""
    from mmseg.apis import inference_model
    from sklearn.metrics import confusion_matrix

    began = time.perf_counter()
    for image in images:
        maps = [inference_model(m, image.path).pred_sem_seg.data[0].numpy().ravel() for m in models]
        for competitor in maps[:-1]:
            confusion_matrix(maps[-1], competitor, labels=range(len(LABELS)))
    return time.perf_counter() - began


def rescan(images: Sequence[PoolImage], models: Sequence[SegmentationModel]) -> None:
    """A new target version beside a scan of the target alone: competitors' maps are read back."""
    target = models[-1]
    newer = load_model("fastscnn@1", target.settings, LABELS, GRID)

    def again() -> float:
        with fresh_stores() as stores:
            scan_with(images, models, stores)
            return scan_with(images, [*models[:-1], newer], stores)

    def alone() -> float:
        with fresh_stores() as stores:
            return scan_with(images, [newer], stores)

    ours, bound = in_turn(again, alone)
    print_figure(
        "re-scan with a new target", "s", ours, bound, "scan of the target alone", 1.1, less_is_better=True
    )


def own_share(images: Sequence[PoolImage], models: Sequence[SegmentationModel]) -> None:
    """CPU time of everything but forward pass, upsampling and class choice, of all CPU time; one thread each."""
    spent = [0.0]
    for model in models:
        assert isinstance(model, TorchModel)
        for step in ("_forward", "_choose"):
            setattr(model, step, timed(getattr(model, step), spent))
    shares = []
    for _ in range(REPEATS):
        spent[0] = 0.0
        began = time.process_time()
        with fresh_stores() as stores:
            scan_with(images, models, stores, threads=1)
        total = time.process_time() - began
        shares.append((total - spent[0]) / total)
    print_figure(
        "own share of the scan's CPU time",
        "share",
        statistics.median(shares),
        1.0,
        "all of it",
        0.05,
        less_is_better=True,
    )


def timed(work: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """`work`, adding the CPU seconds of its thread to `spent`."""

    def measured(*arguments: Any) -> Any:
        began = time.thread_time()
        answer = work(*arguments)
        spent[0] += time.thread_time() - began
        return answer

    return measured


def in_turn(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """Medians of both, one after the other, after a warm-up of each."""
    ours()
    theirs()
    times = np.array([(ours(), theirs()) for _ in range(REPEATS)])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1]))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
