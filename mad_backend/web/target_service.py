"""Answers of the promoted target model for tasks of our segmentation projects; knows nothing of HTTP."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.records import ModelVersion, PoolImage, ProjectRole
from mad_backend.errors import LabelFormatError, MadError, ModelError, PoolError, StoreError
from mad_backend.label_studio.results import regions_of
from mad_backend.models.base import SegmentationModel
from mad_backend.pool.predictions import PredictionPack, PredictionStore
from mad_backend.pool.reader import PoolReader
from mad_backend.pool.sources import list_images
from mad_backend.settings import Settings
from mad_backend.settings_file import load_label_set
from mad_backend.store.store import Store
from mad_backend.targets import load_target

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class TargetPrediction:
    """Regions of one task as Label Studio stores them, and the version that gave them; no regions: no answer."""

    model_version: str | None
    regions: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class _Served:
    """One loaded version; never changed, so that whoever holds it sees one version only."""

    version: ModelVersion
    model: SegmentationModel
    pack: PredictionPack


class TargetService:
    """Holds the promoted version, loaded when first needed and replaced as soon as another one is promoted.

    May be used by many threads: one lock guards the model, the pack of its label maps and their replacement.
    Raises PoolError or SettingsError when the pool or the label set of `settings` cannot be read.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._labels = load_label_set(settings.label_set)
        self._grid = Grid(settings.grid.size, settings.grid.fit)
        self._predictions = PredictionStore((settings.cache or settings.workspace) / "predictions")
        self._reader = PoolReader.of(settings.pool)
        self._pool = self._list_pool()
        self._served: _Served | None = None
        self._lock = Lock()

    def close(self) -> None:
        """Lets go of the model and closes its label maps."""
        with self._lock:
            if self._served:
                self._served.pack.close()
            self._served = None

    def promoted_version(self) -> str | None:
        """Name of the version that is served now, None before the first round; loads nothing."""
        promoted = self._store.versions.promoted()
        return promoted.version if promoted else None

    def predict(self, tasks: Sequence[object]) -> list[TargetPrediction]:
        """One answer per Label Studio task, in order, all of one version.

        A task that is not ours, or whose image or label map fails, has an answer without regions; the log says why.
        Raises StoreError or ModelError when no answer at all is possible: nothing promoted, a model that cannot load.
        """
        rounds = [r.number for r in self._store.rounds.all()]
        image_ids = [_attempted(task, self._image_id, task, rounds) for task in tasks]
        if not any(image_ids):
            return [TargetPrediction(self.promoted_version())] * len(tasks)
        served = self._current()
        self._look_for(filter(None, image_ids))
        found = [
            _attempted(task, self._regions, served, image_id) if image_id else None
            for task, image_id in zip(tasks, image_ids, strict=True)
        ]
        answered = sum(regions is not None for regions in found)
        log.info("%s answered %d of %d tasks", served.version.version, answered, len(tasks))
        return [TargetPrediction(served.version.version, regions or ()) for regions in found]

    def _current(self) -> _Served:
        """The promoted version, loaded, with notice of what a scan has added to its label maps since."""
        with self._lock:
            promoted = self._store.versions.promoted()
            if promoted is None:
                raise StoreError("no target version is promoted yet; start a round with `mad new-round`")
            if self._served and self._served.version.version == promoted.version:
                self._served.pack.refresh()
                return self._served
            model = load_target(promoted, self._settings, self._labels, self._grid)
            if self._served:
                self._served.pack.close()
            self._served = _Served(promoted, model, self._predictions.open(model.key))
            log.info("now serving %s", promoted.version)
            return self._served

    def _image_id(self, task: object, rounds: Sequence[int]) -> str:
        """Pool image of a task; raises LabelFormatError if it belongs to none of our segmentation projects."""
        data = task.get("data") if isinstance(task, Mapping) else None
        item = data.get("item") if isinstance(data, Mapping) else None
        image_id = self._store.remote.image_of_item(item) if isinstance(item, str) else None
        # A rating project has items too; a prediction there would tell raters where an overlay comes from.
        if image_id is None or not any(
            self._store.remote.item_key(number, ProjectRole.SEGMENTATION, image_id) == item
            for number in rounds
        ):
            raise LabelFormatError("its data.item is not of a segmentation project that was pushed from here")
        return image_id

    def _regions(self, served: _Served, image_id: str) -> tuple[Mapping[str, Any], ...]:
        image = self._pool.get(image_id)
        if image is None:
            raise PoolError(f'image "{image_id}" is no longer in the pool; restore it or its source')
        return tuple(regions_of(self._label_map(served, image), self._labels))

    def _label_map(self, served: _Served, image: PoolImage) -> LabelMap:
        """At the image's own size: the map of the last scan, else a new one."""
        with self._lock:
            # The pack of a version that was replaced meanwhile is closed; its model gives the same map.
            is_stored = served is self._served and image.image_id in served.pack
            stored = served.pack.read(image.image_id) if is_stored else None
        if stored is not None:
            return self._grid.restore(stored, *self._reader.size(image))
        frame = self._reader.frame(image, self._grid)
        with self._lock:
            (label_map,) = served.model.predict([frame])
        if label_map is None:
            raise ModelError(f'model "{served.model.name}" has no answer for image "{image.image_id}"')
        return self._grid.restore(label_map, *frame.size)

    def _look_for(self, image_ids: Iterable[str]) -> None:
        """Lists the pool anew if one of these images was not there before."""
        if self._pool.keys() >= set(image_ids):
            return
        try:
            self._pool = self._list_pool()
        except PoolError as error:
            log.warning("the pool as it was at the last listing is used: %s", error)

    def _list_pool(self) -> dict[str, PoolImage]:
        images = list_images(self._settings.pool, self._settings.mirrors)
        return {image.image_id: image for image in images}


def _attempted(task: object, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What `work` gives, or None with a line in the log: of a batch that lacks one answer Label Studio drops all."""
    task_id = task.get("id") if isinstance(task, Mapping) else None
    try:
        return work(*args, **kwargs)
    except MadError as error:
        log.warning("no prediction for task %.40r: %s", task_id, error)
    except Exception:  # a fault in one image (torch, Pillow) must not cost the others of the batch
        log.exception("no prediction for task %.40r", task_id)
    return None
