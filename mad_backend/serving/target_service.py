"""Predictions for the tasks of any Label Studio project, one for each task and all of one version."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import numpy as np

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.runs import RunMap
from mad_backend.errors import AbandonedError, LabelFormatError, MadError
from mad_backend.label_studio.answers import AnswerInterface, DrawingRules, answer_interface, draw
from mad_backend.label_studio.any_project import check_classes
from mad_backend.label_studio.interactive import Prompt, prompt_of, propose
from mad_backend.label_studio.regions import AreaKind
from mad_backend.pool.predictions import PredictionPack, PredictionStore
from mad_backend.pool.reader import PoolReader
from mad_backend.serving.map_cache import Content, MapCache
from mad_backend.serving.open_packs import OpenPacks
from mad_backend.serving.pixel_room import PixelRoom
from mad_backend.serving.pool_images import Place, PoolImages, shown_id
from mad_backend.serving.readings import ImageReader, Reading
from mad_backend.serving.targets import (
    HeldTarget,
    IsAbandoned,
    Targets,
    TargetStatus,
    VersionGoneError,
    never,
)
from mad_backend.serving.task_images import TaskImageReader
from mad_backend.settings import Settings
from mad_backend.settings_file import load_label_set
from mad_backend.store.store import Store

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
"""Images of one request that are fetched, decoded or drawn at once; a slow host holds up no other request."""
_AHEAD: Final = 2
"""Batches that are fetched, and that wait to be drawn, while one is predicted: memory holds no more of a request."""
_ROOM: Final = 64_000_000
"""Pixels decoded or drawn at once in this process; drawing takes some 15 bytes each."""
_VERSIONS: Final = 3
"""That a request tries, when the one it was begun with goes (a model process that dies, a rollback)."""

Regions: TypeAlias = tuple[Mapping[str, Any], ...]
Drawing: TypeAlias = Callable[[LabelMap, tuple[int, int]], Regions]
"""Regions of a (h, w) map on the grid, for an image of this (height, width)."""
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class PredictRequest:
    """What Label Studio asks for: tasks as it sends them, the project's label configuration, and who clicked where."""

    tasks: Sequence[object]
    label_config: str
    context: object = None


@dataclass(frozen=True)
class TargetPrediction:
    """Regions of one task as Label Studio stores them, and the version that gave them; no regions: no answer."""

    model_version: str | None
    regions: Regions = ()


@dataclass(frozen=True)
class _Wanted:
    """An image, and whose it is: numbers of tasks in the request, of which `task_id` names the first in the log."""

    place: Place
    numbers: Sequence[int]
    task_id: str


class TargetService:
    """May be used by many threads; `targets` is where the model runs, `task_images` what may be fetched.

    Raises PoolError or SettingsError when the pool or the label set of `settings` cannot be read.
    """

    def __init__(
        self, store: Store, settings: Settings, targets: Targets, task_images: TaskImageReader
    ) -> None:
        self._labels = load_label_set(settings.label_set)
        check_classes(settings.serve.labels, self._labels, "serve.labels")
        self._grid = Grid(settings.grid.size, settings.grid.fit)
        self._serve = settings.serve
        self._batch = settings.models.target.batch_size
        self._targets = targets
        self._packs = OpenPacks(PredictionStore((settings.cache or settings.workspace) / "predictions"))
        self._cache = MapCache(settings.serve.cache_bytes)
        self._room = PixelRoom(_ROOM)
        self._pool = PoolImages(store, settings)
        self._reader = ImageReader(
            PoolReader.of(settings.pool),
            task_images,
            self._grid,
            self._cache,
            self._room,
            settings.serve.images.max_pixels,
        )
        self._interface = lru_cache(maxsize=64)(self._parsed)

    def close(self) -> None:
        self._packs.close()

    def warm_up(self) -> None:
        """Loads what drawing needs, and compiles it where nobody has: seconds, for which no annotator should wait."""
        thing = len(self._labels) - 1
        label_map = np.full((8, 8), thing, np.uint8)
        rules = DrawingRules(1, self._serve.max_bytes, self._serve.polygon_tolerance)
        for kind in (AreaKind.BITMASK, AreaKind.BRUSH, AreaKind.POLYGON):
            interface = AnswerInterface("", "", "", kind, {thing: self._labels.names[thing]})
            draw(label_map, interface, self._labels, rules)
        RunMap.of(label_map).label_map()

    def served_version(self) -> str | None:
        """Name of the version that answers now, None before the first round; loads nothing."""
        return self._targets.served_version()

    def status(self) -> TargetStatus:
        """Which version answers now and how its model is; as fast as `served_version`."""
        return self._targets.status()

    def predict(self, request: PredictRequest, is_abandoned: IsAbandoned = never) -> list[TargetPrediction]:
        """One answer per task, in order, all of one version.

        With a context (somebody used a smart tool), an answer is the object that was pointed at. A task whose image or
        label map fails has an answer without regions; the log says why. Raises StoreError or ModelError when no answer
        at all is possible (nothing promoted, a model that cannot load), BusyError, AbandonedError.
        """
        tasks = request.tasks
        try:
            interface = self._interface(request.label_config)
            prompt = prompt_of(request.context, interface.image_tag)
        except LabelFormatError as error:
            log.warning("no predictions for %d tasks: %s", len(tasks), error)
            return [TargetPrediction(self.served_version())] * len(tasks)
        wanted = _by_image(tasks, self._pool.places_of(tasks, interface.field))
        if not wanted:
            return [TargetPrediction(self.served_version())] * len(tasks)
        drawing = partial(self._drawn, interface=interface, prompt=prompt)
        for _ in range(_VERSIONS - 1):
            try:
                return self._predicted(len(tasks), wanted, drawing, is_abandoned)
            except VersionGoneError as error:  # What it answered is dropped: versions never mix.
                log.warning("a request is begun anew: %s", error)
        return self._predicted(len(tasks), wanted, drawing, is_abandoned)

    def _predicted(
        self, count: int, wanted: Sequence[_Wanted], drawing: Drawing, is_abandoned: IsAbandoned
    ) -> list[TargetPrediction]:
        """Of `count` tasks, all by the version that is held meanwhile."""
        found: list[Regions | None] = [None] * count
        with self._targets.hold() as target, self._packs.hold(target.key) as pack:
            for image, regions in self._answers(wanted, target, pack, drawing, is_abandoned):
                for number in image.numbers:
                    found[number] = regions
            version = target.version
        answered = sum(regions is not None for regions in found)
        log.info("%s answered %d of %d tasks", version, answered, count)
        return [TargetPrediction(version, regions or ()) for regions in found]

    def _answers(
        self,
        wanted: Sequence[_Wanted],
        target: HeldTarget,
        pack: PredictionPack,
        drawing: Drawing,
        is_abandoned: IsAbandoned,
    ) -> Iterator[tuple[_Wanted, Regions | None]]:
        """In order; images are read ahead, and drawn while the next ones are predicted."""
        read = partial(self._reader.read, key=target.key, pack=pack)
        left, ahead = iter(wanted), _AHEAD * self._batch
        coming: deque[tuple[_Wanted, Future[Reading]]] = deque()
        drawn: deque[tuple[_Wanted, Future[Regions]]] = deque()
        with _threads(len(wanted)) as threads:
            coming.extend((image, threads.submit(read, image.place)) for image in islice(left, ahead))
            while coming:
                some = [coming.popleft() for _ in range(min(self._batch, len(coming)))]
                coming.extend((image, threads.submit(read, image.place)) for image in islice(left, len(some)))
                readings = [(image, _got(image, future)) for image, future in some]
                there = [(image, reading) for image, reading in readings if reading is not None]
                if is_abandoned():
                    raise AbandonedError("nobody waits for the answer any more")
                maps = self._label_maps([reading for _, reading in there], target, is_abandoned)
                for (image, reading), found in zip(there, maps, strict=True):
                    if isinstance(found, MadError):
                        _refused(image, found)
                    else:
                        drawn.append((image, threads.submit(drawing, found, reading.size)))
                while len(drawn) > ahead:
                    image, done = drawn.popleft()
                    yield image, _got(image, done)
            yield from ((image, _got(image, done)) for image, done in drawn)

    def _label_maps(
        self, readings: Sequence[Reading], target: HeldTarget, is_abandoned: IsAbandoned
    ) -> list[LabelMap | MadError]:
        """On the grid, one per reading, or why there is none; each content that is new is predicted once."""
        maps: dict[Content, LabelMap | MadError] = {}
        frames = {}
        for reading in readings:
            # Others may have asked for the same since it was read; so may this request.
            known = reading.label_map
            if known is None:
                known = self._cache.get(target.key, reading.content)
            if known is not None:
                maps[reading.content] = known
            elif reading.frame is not None:
                frames[reading.content] = reading.frame
        if frames:
            answers = target.predict(list(frames.values()), is_abandoned)
            for content, answer in zip(frames, answers, strict=True):
                maps[content] = answer
                if not isinstance(answer, MadError):
                    self._cache.put(target.key, content, answer)
        return [maps[reading.content] for reading in readings]

    def _drawn(
        self, label_map: LabelMap, size: tuple[int, int], interface: AnswerInterface, prompt: Prompt | None
    ) -> Regions:
        """A `Drawing`, of the whole map or of what the prompt means."""
        serve = self._serve
        rules = DrawingRules(serve.min_region, serve.max_bytes, serve.polygon_tolerance)
        with self._room.taken(size[0] * size[1]):
            whole = self._grid.restore(label_map, *size)
            if prompt is not None:
                return propose(whole, prompt, interface, self._labels, rules)
            return draw(whole, interface, self._labels, rules)

    def _parsed(self, label_config: str) -> AnswerInterface:
        return answer_interface(label_config, self._labels, self._serve.labels)


class _Inline(Executor):
    """For one image: what would wait for a thread is done by the one that asks."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as a thread would keep it for whoever wants the result
            done.set_exception(error)
        return done


@contextmanager
def _threads(images: int) -> Iterator[Executor]:
    """Of one request; what is left undone when it fails is not begun, and what is begun is waited for."""
    threads = (
        _Inline() if images == 1 else ThreadPoolExecutor(min(images, _AT_ONCE), thread_name_prefix="images")
    )
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _by_image(tasks: Sequence[object], places: Mapping[int, Place]) -> list[_Wanted]:
    """Each image once, in the order of the first tasks that want it."""
    numbers: dict[Place, list[int]] = {}
    for number, place in places.items():
        numbers.setdefault(place, []).append(number)
    return [_Wanted(place, found, shown_id(tasks[found[0]])) for place, found in numbers.items()]


def _got(image: _Wanted, future: Future[T]) -> T | None:
    """What a thread made of an image, or None with a line in the log: a batch that lacks one is dropped as a whole."""
    try:
        return future.result()
    except CancelledError:
        raise
    except MadError as error:
        _refused(image, error)
    except Exception:  # a fault in one image (Pillow, a codec) must not cost the others of the batch
        log.exception("no prediction for task %s", image.task_id)
    return None


def _refused(image: _Wanted, error: MadError) -> None:
    log.warning("no prediction for task %s: %s", image.task_id, error)
