"""Brings people's answers back: ratings, and label maps with exactly one class per pixel.

What each open store already holds is remembered for as long as the process lives, so that a pull of a project
where nothing happened costs two short questions; a new process reads everything once.
"""

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import HumanMask, ProjectRole, Rating, RemoteProject
from mad_backend.errors import LabelFormatError, LabelStudioError, StoreError
from mad_backend.label_studio.results import compose, rating_of
from mad_backend.store.store import Store
from sync.client import Annotation, LabelStudioClient, TaskState
from sync.projects import check_labels

log = logging.getLogger(__name__)

_OVERLAP: Final = timedelta(minutes=2)
"""How far before the newest change the server is asked again: on Postgres a slow writer may commit late."""

SizeOf = Callable[[str], tuple[int, int]]
"""Image id -> (height, width)."""


@dataclass(frozen=True)
class PullProgress:
    """Images answered, of how many, and how many answers by each person (email)."""

    done: int
    total: int
    by_person: dict[str, int]


@dataclass
class _Memory:
    """What one store holds of one project: when each task was last changed, and what came of it."""

    pushed: dict[str, int] = field(default_factory=dict)
    stamps: dict[int, datetime] = field(default_factory=dict)
    progress: PullProgress | None = None
    annotators: dict[int, str] = field(default_factory=dict)
    """Task id -> who drew its mask, for tasks with a readable one."""


@dataclass(frozen=True)
class _Reading:
    """One look at a project: its tasks, those of them that changed, and which image each is for."""

    tasks: list[TaskState]
    changed: list[TaskState]
    images: dict[int, str]
    total: int


_memories: WeakKeyDictionary[Store, dict[tuple[object, ...], _Memory]] = WeakKeyDictionary()


def pull_ratings(client: LabelStudioClient, store: Store, number: int, *, wanted: int = 3) -> PullProgress:
    """Replaces the round's ratings by what stands in Label Studio now.

    An image is done with `wanted` ratings by distinct people, or once vetoed. Of one person the latest
    answer counts; of more than `wanted` people the first ones by time, and every veto. Cancelled, empty and
    unreadable annotations are left out and logged. Raises LabelStudioError, and StoreError if nothing was
    pushed.
    """
    project, tasks = _project(client, store, number, ProjectRole.RATING)
    memory = _memory(store, client, project, wanted)
    reading = _read(client, store, number, project, tasks, memory)
    if isinstance(reading, PullProgress):
        return reading
    people = client.people()
    given: dict[str, list[Rating]] = {image_id: [] for image_id in reading.images.values()}
    for annotation in client.export(project.project_id):
        image_id = reading.images.get(annotation.task_id)
        rating = _rating(annotation, image_id, people) if image_id else None
        if rating:
            given[rating.image_id].append(rating)
    counted = {image_id: _panel(ratings, wanted) for image_id, ratings in given.items()}
    found = [rating for image_id in sorted(counted) for rating in counted[image_id]]
    store.remote.record_ratings(number, found)
    done = sum(len(panel) >= wanted or any(r.is_veto for r in panel) for panel in counted.values())
    progress = PullProgress(done, reading.total, dict(Counter(r.rater for r in found)))
    _remember(memory, reading, progress)
    log.info("round %d: %d ratings, %d of %d images done", number, len(found), done, progress.total)
    return progress


def pull_masks(
    client: LabelStudioClient,
    store: Store,
    number: int,
    labels: LabelSet,
    *,
    size_of: SizeOf,
    root: Path,
) -> PullProgress:
    """Label maps as index PNGs (8 bit grey, the value is the class id, 255 void) at root/<item key>.png.

    The latest annotation that was not cancelled counts. One that cannot be read is logged and its image is
    not done. Files first, rows second, both only where something changed. Raises LabelStudioError, and
    StoreError if nothing was pushed.
    """
    project, tasks = _project(client, store, number, ProjectRole.SEGMENTATION)
    memory = _memory(store, client, project, str(root.resolve()))
    reading = _read(client, store, number, project, tasks, memory)
    if isinstance(reading, PullProgress):
        return reading
    puller = _MaskPuller(
        client, store, number, labels, size_of, root, client.people(), store.remote.masks(number)
    )
    annotators = {t: who for t, who in memory.annotators.items() if t in reading.images}
    for task in reading.changed:
        annotators.pop(task.task_id, None)
        annotator = puller.pull(task, reading.images[task.task_id])
        if annotator:
            annotators[task.task_id] = annotator
    by_image = {reading.images[t]: who for t, who in annotators.items()}
    progress = PullProgress(len(by_image), reading.total, dict(Counter(by_image.values())))
    memory.annotators = annotators
    _remember(memory, reading, progress)
    log.info("round %d: %d of %d label maps done", number, progress.done, progress.total)
    return progress


@dataclass(frozen=True)
class _MaskPuller:
    client: LabelStudioClient
    store: Store
    number: int
    labels: LabelSet
    size_of: SizeOf
    root: Path
    people: Mapping[int, str]
    known: Mapping[str, HumanMask]

    def pull(self, task: TaskState, image_id: str) -> str | None:
        """Who drew the mask of `task`; None if there is none that can be read."""
        if not task.annotations:
            return None
        valid = [a for a in self.client.annotations(task.task_id) if not a.was_cancelled]
        if not valid:
            return None
        latest = max(valid, key=lambda a: (a.updated_at, a.annotation_id))
        try:
            label_map, notes = self._label_map(latest, image_id)
        except LabelFormatError as error:
            log.warning("image %s, annotation %d is not a mask: %s", image_id, latest.annotation_id, error)
            return None
        content = _index_png(label_map)
        key = self.store.remote.item_key(self.number, ProjectRole.SEGMENTATION, image_id)
        path = self.root / f"{key}.png"
        mask = HumanMask(
            image_id=image_id,
            path=str(path),
            sha256=hashlib.sha256(content).hexdigest(),
            annotator=_name(latest, self.people),
            annotation_id=latest.annotation_id,
            notes=notes,
        )
        if not (path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == mask.sha256):
            _write(path, content)
        if self.known.get(image_id) != mask:
            self.store.remote.record_mask(self.number, mask)
        return mask.annotator

    def _label_map(self, annotation: Annotation, image_id: str) -> tuple[LabelMap, tuple[str, ...]]:
        if not annotation.result:
            raise LabelFormatError(
                "nothing was painted; paint one dot of background if there is nothing to label"
            )
        parent = None
        notes: tuple[str, ...] = ()
        if annotation.prediction_id is not None:
            parent = self.client.prediction_result(annotation.prediction_id)
            if parent is None:
                notes = ("the prediction it was started from is gone; later regions won",)
        height, width = self.size_of(image_id)
        composed = compose(annotation.result, self.labels, height, width, parent)
        return composed.label_map, composed.notes + notes


def _project(
    client: LabelStudioClient, store: Store, number: int, role: ProjectRole
) -> tuple[RemoteProject, int]:
    """The recorded project, if it is still there with its labels as made, and its number of tasks."""
    recorded = store.remote.project(number, role)
    if recorded is None:
        raise StoreError(f"round {number} has no {role} project; push before pulling")
    there = client.project(recorded.project_id)
    if there is None:
        raise LabelStudioError(
            f"project {recorded.project_id} ({role}, round {number}) was deleted in Label Studio; "
            "push again to make it anew",
            404,
        )
    check_labels(there, recorded)
    return recorded, there.tasks


def _memory(store: Store, client: LabelStudioClient, project: RemoteProject, asked: object) -> _Memory:
    key = (client.url, project.project_id, asked)
    return _memories.setdefault(store, {}).setdefault(key, _Memory())


def _read(
    client: LabelStudioClient, store: Store, number: int, project: RemoteProject, tasks: int, memory: _Memory
) -> _Reading | PullProgress:
    """Last time's progress if nothing happened since: as many tasks, and none with a new time of change."""
    pushed = store.remote.tasks(number, project.role)
    if pushed != memory.pushed:
        memory.pushed, memory.stamps, memory.progress = pushed, {}, None
    if memory.progress and tasks == len(memory.stamps):
        since = max(memory.stamps.values()) - _OVERLAP if memory.stamps else None
        recent = client.tasks(project.project_id, changed_since=since)
        if all(memory.stamps.get(t.task_id) == t.updated_at for t in recent):
            return memory.progress
    listed = client.tasks(project.project_id)
    by_key = {store.remote.item_key(number, project.role, image_id): image_id for image_id in pushed}
    images = {t.task_id: by_key[t.item] for t in listed if t.item in by_key}
    changed = [t for t in listed if t.task_id in images and memory.stamps.get(t.task_id) != t.updated_at]
    return _Reading(listed, changed, images, len(pushed))


def _remember(memory: _Memory, reading: _Reading, progress: PullProgress) -> None:
    """Only now, when the rows are written. The times were asked for before the answers, so none is missed."""
    memory.stamps = {t.task_id: t.updated_at for t in reading.tasks}
    memory.progress = progress


def _rating(annotation: Annotation, image_id: str, people: Mapping[int, str]) -> Rating | None:
    if annotation.was_cancelled:
        return None
    try:
        score = rating_of(annotation.result)
    except LabelFormatError as error:
        log.warning("image %s, annotation %d left out: %s", image_id, annotation.annotation_id, error)
        return None
    return Rating(
        image_id=image_id,
        rater=_name(annotation, people),
        score=score,
        annotation_id=annotation.annotation_id,
        created_at=annotation.created_at,
        lead_time_s=annotation.lead_time_s,
    )


def _panel(ratings: Sequence[Rating], wanted: int) -> list[Rating]:
    """Each person's latest rating, of the first `wanted` people to rate; later people only if they veto."""
    latest: dict[str, Rating] = {}
    for rating in sorted(ratings, key=lambda r: (r.created_at, r.annotation_id)):
        # Assigning again keeps the place of the first time, so nobody loses the seat by rating again.
        latest[rating.rater] = rating
    return [r for place, r in enumerate(latest.values()) if place < wanted or r.is_veto]


def _name(annotation: Annotation, people: Mapping[int, str]) -> str:
    return people.get(annotation.user_id or 0) or f"user-{annotation.user_id}"


def _index_png(label_map: LabelMap) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(label_map)).save(file, format="PNG")
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Temporary name, fsync, rename: whoever finds `path` finds all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
