"""Which model's label map an annotator starts from (segmentation.start_from), and the further ones."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import iou_per_class
from mad_backend.core.testset import main_foreground
from mad_backend.engines.base import ModelRecipe
from mad_backend.engines.factory import open_engine
from mad_backend.pool.predictions import PredictionPack
from mad_backend.scan import predict_images
from sync.segmentation_project import Starting, StartingMaps
from training.evaluate import matrices_of
from training.project import Project
from training.scanning import StoredModel

log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]
"""(what is done, done, total)."""


def prepare_starts(project: Project, report: Report) -> None:
    """Measures every competing model on T(0)'s dev part, as far as that is not done; does nothing unless needed.

    A heavy step: it may load models. Raises PoolError, ModelError, MissingRuntimeError, ScanError or StoreError.
    """
    path = _path(project)
    if project.settings.segmentation.start_from != "best" or path.exists():
        return
    models = [StoredModel(name, key) for name, key in project.competitor_keys().items()]
    recipes = [
        ModelRecipe(m.name, project.settings.models.competing[m.name], project.labels, project.grid)
        for m in models
    ]
    predict_images(
        [item.image for item in project.t0_dev],
        models,
        project.predictions,
        project.open_ledger(),
        lambda: open_engine(project.settings.scan, recipes, project.reader.read),
        project.settings.scan.chunk,
        lambda status: report(
            "models predict T(0), to choose what annotators start from", status.done, status.total
        ),
    )
    _write(path, {m.name: _iou(project, m.key) for m in models})


def best_models(project: Project) -> dict[int, str]:
    """Class id -> the competing model with the highest IoU of it on T(0)'s dev part, by name on a tie.

    Classes that no model finds at all are absent. Everything is absent, and logged, where `prepare_starts` was not
    called with the models and images of now: settings may have changed since.
    """
    path = _path(project)
    if not path.exists():
        log.warning(
            "annotators start from the target: the competing models were not compared on T(0) as they are now"
        )
        return {}
    told = json.loads(path.read_text(encoding="utf-8"))
    best: dict[int, str] = {}
    for class_id, name in enumerate(project.labels.names):
        iou = {model: by_class.get(name, 0.0) for model, by_class in told.items()}
        winner = min(iou, key=lambda model: (-iou[model], model))
        if iou[winner] > 0:
            best[class_id] = winner
    return best


@contextmanager
def starting_maps(project: Project, version: str) -> Iterator[StartingMaps]:
    """What `push_segmentation` asks for each image it sends, by settings; `version` is the round's target.

    Maps come from the prediction store. An image that a model has no map of goes without that map, and starts from the
    target's where that was to be the start.
    """
    settings, keys = project.settings.segmentation, project.competitor_keys()
    best = best_models(project) if settings.start_from == "best" else {}
    read = sorted(keys) if settings.further else sorted(set(best.values()))
    with ExitStack() as stack:
        packs = {name: stack.enter_context(project.predictions.open(keys[name])) for name in read}
        yield _StoredMaps(project, version, best, packs)


@dataclass(frozen=True)
class _StoredMaps:
    project: Project
    version: str
    best: Mapping[int, str]
    packs: Mapping[str, PredictionPack]

    def __call__(self, image_id: str, target: LabelMap) -> Starting:
        settings = self.project.settings.segmentation
        start = None if settings.start_from == "none" else self._best(image_id, target)
        if not settings.further:
            return Starting(start)
        found = {name: self._map(name, image_id, target) for name in self.packs}
        further = {name: label_map for name, label_map in found.items() if label_map is not None}
        return Starting(start, further | {self.version: target})

    def _best(self, image_id: str, target: LabelMap) -> LabelMap:
        """The map of the model that is best at the image's main class; the target's where nobody knows."""
        main = main_foreground(target, self.project.labels)
        is_there = main in self.project.labels.foreground_ids
        name = self.best.get(main) if is_there else None
        found = self._map(name, image_id, target) if name else None
        return target if found is None else found

    def _map(self, name: str, image_id: str, target: LabelMap) -> LabelMap | None:
        pack = self.packs[name]
        return self.project.grid.restore(pack.read(image_id), *target.shape) if image_id in pack else None


def _iou(project: Project, key: str) -> dict[str, float]:
    """Class name -> IoU over all pixels of T(0)'s dev part; classes that are neither there nor predicted are absent."""
    iou = iou_per_class(matrices_of(project, key, project.t0_dev).sum(axis=0))
    names = project.labels.names
    return {name: float(value) for name, value in zip(names, iou, strict=True) if not math.isnan(value)}


def _path(project: Project) -> Path:
    """Another model, image or class, another file."""
    images = [(i.image.image_id, i.image.etag, repr(i.truth)) for i in project.t0_dev]
    what = (sorted(project.competitor_keys().items()), project.labels.names, images)
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    return project.settings.workspace / "evaluations" / f"start-{digest}.json"


def _write(path: Path, told: Mapping[str, Mapping[str, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(told, indent=1), encoding="utf-8")
    temporary.replace(path)
