"""Every model over the pool, only what is missing: label maps, then joint histograms (Algorithm 1, lines 2-9)."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mad_backend.core.grid import Grid
from mad_backend.core.metrics import JointHistogram, joint_histogram
from mad_backend.core.records import Frame, PoolImage
from mad_backend.errors import ImageError
from mad_backend.models.base import SegmentationModel
from mad_backend.pool.images import read_rgb
from mad_backend.pool.predictions import PredictionPack, PredictionStore
from mad_backend.pool.scores import ScoreStore

log = logging.getLogger(__name__)

CHUNK = 32
"""Images decoded, predicted, compared and written together: at most this much work is lost by a kill."""

Progress = Callable[[int, int], None]
"""(done, total)."""


@dataclass
class ScanReport:
    """What a scan found; `unreadable` is image id -> reason, `unanswered` model name -> image ids."""

    images: int
    unreadable: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, list[str]] = field(default_factory=dict)


def predict_images(
    images: Sequence[PoolImage],
    models: Sequence[SegmentationModel],
    predictions: PredictionStore,
    grid: Grid,
    progress: Progress = lambda _done, _total: None,
) -> ScanReport:
    """Brings the label map of every model on every image into `predictions`; what is there is left alone."""
    report = ScanReport(len(images))
    with ExitStack() as stack:
        packs = {m.name: stack.enter_context(predictions.open(m.key, writable=True)) for m in models}
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            lacking = {m.name: set(packs[m.name].missing(i.image_id for i in chunk)) for m in models}
            wanted = set().union(*lacking.values())
            frames = list(_frames((i for i in chunk if i.image_id in wanted), grid, report))
            for model in models:
                own = [frame for frame in frames if frame.image_id in lacking[model.name]]
                _predict_into(packs[model.name], model, own, report)
            progress(min(start + CHUNK, len(images)), len(images))
    for name, unanswered in report.unanswered.items():
        log.warning("model %s has no answer for %d of %d images", name, len(unanswered), len(images))
    return report


def score_images(
    images: Sequence[PoolImage],
    target: str,
    competitor: str,
    predictions: PredictionStore,
    scores: ScoreStore,
    classes: int,
) -> None:
    """Joint histograms of one pair of model keys for every image that both answered and that has none yet."""
    done = scores.image_ids(target, competitor)
    with predictions.open(target) as rows, predictions.open(competitor) as columns:
        todo = [
            i.image_id
            for i in images
            if i.image_id not in done and i.image_id in rows and i.image_id in columns
        ]
        for start in range(0, len(todo), 1024):
            joints: dict[str, JointHistogram] = {
                image_id: joint_histogram(rows.read(image_id), columns.read(image_id), classes)
                for image_id in todo[start : start + 1024]
            }
            scores.append(target, competitor, joints)


def scan(
    images: Sequence[PoolImage],
    target: SegmentationModel,
    competitors: Sequence[SegmentationModel],
    predictions: PredictionStore,
    scores: ScoreStore,
    grid: Grid,
    progress: Progress = lambda _done, _total: None,
) -> ScanReport:
    """Everything M needs; may be interrupted at any moment and goes on from there."""
    report = predict_images(images, [*competitors, target], predictions, grid, progress)
    for competitor in competitors:
        score_images(images, target.key, competitor.key, predictions, scores, len(target.labels))
    return report


def _frames(images: Iterator[PoolImage], grid: Grid, report: ScanReport) -> Iterator[Frame]:
    for image in images:
        try:
            rgb = read_rgb(Path(image.path))
        except ImageError as error:
            log.warning("skipped %s: %s", image.image_id, error)
            report.unreadable[image.image_id] = str(error)
            continue
        height, width = rgb.shape[:2]
        yield Frame(image.image_id, grid.image(rgb), (height, width))


def _predict_into(
    pack: PredictionPack, model: SegmentationModel, frames: Sequence[Frame], report: ScanReport
) -> None:
    if not frames:
        return
    for frame, label_map in zip(frames, model.predict(frames), strict=True):
        if label_map is None:
            report.unanswered.setdefault(model.name, []).append(frame.image_id)
        else:
            pack.append(frame.image_id, label_map)
    pack.flush()
