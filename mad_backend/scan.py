"""Every model over the pool, only what is missing: label maps, then scores (Algorithm 1, lines 2-9).

Chunks and blocks are cut by position in the pool, maps are written in the pool's order, a chunk's maps all at once:
a scan that was killed and goes on writes the same bytes as one that was not.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import JointHistogram
from mad_backend.core.records import PoolImage
from mad_backend.core.scores import scores_of
from mad_backend.engines.base import ChunkResult, ChunkTask, Engine, WantedImage
from mad_backend.pool.ids import image_keys
from mad_backend.pool.ledger import Ledger, SeenImage
from mad_backend.pool.predictions import PredictionPack, PredictionStore
from mad_backend.pool.scores import ScoreStore

log = logging.getLogger(__name__)

BLOCK = 16_384
"""Images whose scores make one Parquet part: few large files for a million images, minutes of comparing lost by a kill
(their label maps are not)."""


class Named(Protocol):
    """A model as far as the stores are concerned."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...


@dataclass(frozen=True)
class ScanStores:
    """Where a scan finds what is there and leaves what it adds."""

    predictions: PredictionStore
    scores: ScoreStore
    ledger: Ledger


@dataclass
class ScanStatus:
    """How far a scan is; `predicted` counts images that a model was asked about.

    `model_s` are the seconds in models, of the average replica where there are several.
    """

    total: int
    done: int = 0
    predicted: int = 0
    to_predict: int = 0
    model_s: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def images_per_s(self) -> float:
        return self.predicted / max(time.perf_counter() - self.began, 1e-9)

    @property
    def model_share(self) -> float:
        """Share of the time so far in which a model was at work."""
        return self.model_s / max(time.perf_counter() - self.began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """By the speed so far; None before the first image."""
        if not self.predicted:
            return None
        return (self.to_predict - self.predicted) / max(self.images_per_s, 1e-9)


Progress = Callable[[ScanStatus], None]
OpenEngine = Callable[[], Engine]


@dataclass
class ScanReport:
    """What a scan did and found.

    `unreadable` is image id -> reason, `unanswered` model name -> image ids, `added` model name -> new label maps.
    """

    images: int
    unreadable: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, list[str]] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    scored: int = 0


def scan(
    images: Sequence[PoolImage],
    target: Named,
    competitors: Sequence[Named],
    stores: ScanStores,
    open_engine: OpenEngine,
    classes: int,
    chunk: int = 32,
    progress: Progress = lambda _status: None,
    block: int = BLOCK,
) -> ScanReport:
    """Everything M needs, for images in the pool's order; may be stopped at any moment and goes on from there.

    `open_engine` gives an engine of the competitors, in this order, then the target; it is not asked for one while
    nothing is to be predicted.
    """
    models = [*competitors, target]
    report = ScanReport(len(images))
    with ExitStack() as stack:
        packs = [stack.enter_context(stores.predictions.open(m.key, writable=True)) for m in models]
        comparing = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="compare"))
        compared: Future[int] | None = None
        for part in _predicted_blocks(
            images,
            models,
            packs,
            stores.ledger,
            open_engine,
            chunk,
            report,
            progress,
            max(1, block // chunk) * chunk,
        ):
            if compared:
                report.scored += compared.result()
            compared = comparing.submit(
                _compare, part, target, competitors, packs, stores.scores, stores.ledger, classes
            )
        if compared:
            report.scored += compared.result()
    known = image_keys(i.image_id for i in images)
    for competitor in competitors:
        stores.scores.set_absent(target.key, competitor.key, known)
    _tell(report, len(images))
    return report


def predict_images(
    images: Sequence[PoolImage],
    models: Sequence[Named],
    predictions: PredictionStore,
    ledger: Ledger,
    open_engine: OpenEngine,
    chunk: int = 32,
    progress: Progress = lambda _status: None,
) -> ScanReport:
    """Brings the label map of every model on every image into `predictions`, without comparing them."""
    report = ScanReport(len(images))
    with ExitStack() as stack:
        packs = [stack.enter_context(predictions.open(m.key, writable=True)) for m in models]
        for _ in _predicted_blocks(
            images, models, packs, ledger, open_engine, chunk, report, progress, BLOCK // chunk * chunk
        ):
            pass
    _tell(report, len(images))
    return report


def _predicted_blocks(
    images: Sequence[PoolImage],
    models: Sequence[Named],
    packs: Sequence[PredictionPack],
    ledger: Ledger,
    open_engine: OpenEngine,
    chunk: int,
    report: ScanReport,
    progress: Progress,
    block: int,
) -> Iterator[Sequence[PoolImage]]:
    """Writes what is missing; yields each block of images once all its maps are there."""
    tasks = _tasks(images, packs, ledger, chunk)
    status = ScanStatus(len(images), to_predict=sum(len(t.images) for t in tasks))
    progress(status)
    with open_engine() if tasks else nullcontext() as engine:
        status.began = time.perf_counter()  # loading models says nothing about the speed to come
        results = engine.run(tasks) if engine else iter(())
        result = next(results, None)
        for start in range(0, len(images), block):
            stop = min(start + block, len(images))
            seen: list[SeenImage] = []
            while result and result.number * chunk < stop:
                _write(result, models, packs, report)
                seen += result.seen
                status.predicted += result.images
                status.model_s += result.model_s / (engine.replicas if engine else 1)
                status.done = min((result.number + 1) * chunk, len(images))
                progress(status)
                result = next(results, None)
            ledger.append(seen)
            status.done = stop
            progress(status)
            yield images[start:stop]


def _tasks(
    images: Sequence[PoolImage], packs: Sequence[PredictionPack], ledger: Ledger, chunk: int
) -> list[ChunkTask]:
    """Chunks by position, with the images that are new, changed, or lack a map of some model."""
    keys = image_keys(i.image_id for i in images)
    unchanged = ledger.unchanged(images)
    content, _ = ledger.content(keys)
    stored = [pack.digests(keys) for pack in packs]
    whole = unchanged.copy()
    for found, digests in stored:
        whole &= found & (digests == content)
    tasks = []
    wanted = np.flatnonzero(~whole)
    for number in np.unique(wanted // chunk).tolist():
        begin, end = np.searchsorted(wanted, [number * chunk, (number + 1) * chunk])
        chosen = tuple(
            WantedImage(images[i], tuple(int(digests[i]) if found[i] else None for found, digests in stored))
            for i in wanted[begin:end].tolist()
        )
        tasks.append(ChunkTask(number, chosen))
    return tasks


def _write(
    result: ChunkResult, models: Sequence[Named], packs: Sequence[PredictionPack], report: ScanReport
) -> None:
    for model, pack, maps, unanswered in zip(models, packs, result.maps, result.unanswered, strict=True):
        pack.append(maps)
        report.added[model.name] = report.added.get(model.name, 0) + len(maps)
        if unanswered:
            report.unanswered.setdefault(model.name, []).extend(unanswered)
    for image_id, reason in result.unreadable.items():
        log.warning("skipped %s: %s", image_id, reason)
    report.unreadable.update(result.unreadable)


def _compare(
    block: Sequence[PoolImage],
    target: Named,
    competitors: Sequence[Named],
    packs: Sequence[PredictionPack],
    scores: ScoreStore,
    ledger: Ledger,
    classes: int,
) -> int:
    """Scores of every pair for the images of a block that have none of their present content; returns how many."""
    ids = np.array([i.image_id for i in block], object)
    keys = image_keys(ids)
    digests, looks = ledger.content(keys)
    has_target = _has(packs[-1], keys, digests)
    added = 0
    for competitor, pack in zip(competitors, packs[:-1], strict=True):
        todo = has_target & _has(pack, keys, digests)
        todo &= ~scores.holds(target.key, competitor.key, keys, digests)
        rows = np.flatnonzero(todo)
        if len(rows):
            joints = _joints(ids[rows].tolist(), packs[-1], pack, classes)
            scores.append(
                target.key, competitor.key, scores_of(ids[rows].tolist(), digests[rows], looks[rows], joints)
            )
            added += len(rows)
    return added


def _has(pack: PredictionPack, keys: NDArray[np.uint64], digests: NDArray[np.uint64]) -> NDArray[np.bool_]:
    found, of = pack.digests(keys)
    same: NDArray[np.bool_] = found & (of == digests)
    return same


def _joints(
    image_ids: Sequence[str], rows: PredictionPack, columns: PredictionPack, classes: int
) -> Iterator[JointHistogram]:
    """One (C + 1, C + 1) histogram an image, of two models' stored maps; the same array every time."""
    joint = np.zeros((classes + 1, classes + 1), np.int64)
    for image_id in image_ids:
        joint[:] = 0
        rows.read_runs(image_id).count_with(columns.read_runs(image_id), joint)
        yield joint


def _tell(report: ScanReport, total: int) -> None:
    for name, unanswered in report.unanswered.items():
        log.warning("model %s has no answer for %d of %d images", name, len(unanswered), total)
