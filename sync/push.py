"""Sends images to people, whatever for: keyed, so that it may be repeated after any interruption.

The server is asked what it has, and only what is missing is sent; after a failed or unanswered request it is asked
again, and the push goes on.
"""

import io
import json
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image

from mad_backend.core.labels import LabelMap, RgbImage
from mad_backend.core.records import RemoteProject
from mad_backend.errors import LabelStudioError
from mad_backend.store.store import Store
from sync.client import Json, LabelStudioClient, TaskState
from sync.patience import RESTART, Patience
from sync.pictures import PerishablePictures, PictureHost
from sync.twins import keep_one, tasks_by_item

log = logging.getLogger(__name__)

_CHUNK: Final = 50
"""Tasks per import: a request of about a second, and what has to be drawn again after an interruption."""
CHUNK_BYTES: Final = 16 * 2**20
"""Of pictures and JSON per chunk; at most three chunks are in memory."""
_DRAWERS: Final = 2
"""Threads; two draw faster than a server on the same two cores takes what they drew."""
_JPEG_QUALITY: Final = 95


@dataclass(frozen=True)
class PushItem:
    """One image to send; `load` gives photo and target's label map, both at the photo's size, when needed.

    `load` is called in another thread. `address` is where the photo itself lies (path, s3://..., https://...); "" if
    unknown.
    """

    image_id: str
    load: Callable[[], tuple[RgbImage, LabelMap]]
    address: str = ""


Report = Callable[[int, int], None]
"""Called with (done, total)."""

Drawn: TypeAlias = tuple[Mapping[str, bytes], Callable[[Mapping[str, str]], Json]]
"""JPEG files by name, and what makes the task once their addresses are known (asked more than once)."""
Draw: TypeAlias = Callable[[str, PushItem], Drawn]
"""(item key, item) -> what to send; called in several threads."""


@dataclass(frozen=True)
class _Parcel:
    """One drawn item; `size` in bytes, pictures and JSON together."""

    key: str
    files: Mapping[str, bytes]
    task: Callable[[Mapping[str, str]], Json]
    size: int


@dataclass(frozen=True)
class _State:
    """What the server has of a push's items: their tasks, oldest first, and the keys of those that lack pictures."""

    tasks: Mapping[str, Sequence[TaskState]]
    lost: frozenset[str]


def push_items(
    client: LabelStudioClient,
    store: Store,
    number: int,
    project: RemoteProject,
    items: Sequence[PushItem],
    draw: Draw,
    report: Report,
    host: PictureHost,
    seat: str = "",
) -> None:
    """Sends what is missing of `items`, and records the tasks; `draw` makes a task's parts.

    Afterwards each item has one task, and its pictures are there, whatever failed or was deleted meanwhile. Raises
    LabelStudioError: at once where the server refuses, else after some minutes without progress.
    """
    keys = {store.remote.item_key(number, project.role, item.image_id, seat): item for item in items}
    sender = _Sender(client, project.project_id, keys, draw, host)
    patience, fewest, is_sent = Patience(RESTART, client.backoff_s), len(keys) + 1, False
    wanted = f"sending {len(keys)} tasks to project {project.project_id}"
    while True:
        try:
            state = sender.look()
            todo = [key for key in keys if key not in state.tasks or key in state.lost]
            report(len(keys) - len(todo), len(keys))
            if not todo:
                tasks = {keys[key].image_id: keep_one(client, state.tasks[key]) for key in keys}
                break
            if len(todo) < fewest:
                patience.restore()
                fewest = len(todo)
            elif is_sent:
                patience.wait(wanted, _vanished(project.project_id, len(todo), len(keys)))
            is_sent = False
            sender.send(todo, state, report)
            is_sent = True
        except LabelStudioError as error:
            patience.wait(wanted, _explained(client, project.project_id, error))
    store.remote.record_tasks(number, project.role, tasks, seat)
    log.info("round %d: %s project %d has %d tasks", number, project.role, project.project_id, len(tasks))


@dataclass(frozen=True)
class _Sender:
    """Brings items to one project, in chunks; the next one is drawn while one is on its way."""

    client: LabelStudioClient
    project_id: int
    items: Mapping[str, PushItem]
    draw: Draw
    host: PictureHost

    def look(self) -> _State:
        """What is there now."""
        found = tasks_by_item(self.client, self.project_id)
        tasks = {key: found[key] for key in self.items if key in found}
        if not isinstance(self.host, PerishablePictures):
            return _State(tasks, frozenset())
        shown = {key: {file for task in twins for file in task.files} for key, twins in tasks.items()}
        gone = self.host.lost(self.project_id, set().union(*shown.values()))
        return _State(tasks, frozenset(key for key, files in shown.items() if files & gone))

    def send(self, todo: Sequence[str], state: _State, report: Report) -> None:
        """Raises LabelStudioError with part of it sent, or all, without an answer."""
        done = len(self.items) - len(todo)
        with closing(_drawn(self.draw, [(key, self.items[key]) for key in todo])) as parcels:
            for chunk in _chunks(parcels):
                self._send(chunk, state)
                done += len(chunk)
                report(done, len(self.items))

    def _send(self, chunk: Sequence[_Parcel], state: _State) -> None:
        files = {name: content for parcel in chunk for name, content in parcel.files.items()}
        there = self.host.place(self.project_id, files)
        if absent := [parcel.task(there) for parcel in chunk if parcel.key not in state.tasks]:
            self.client.import_tasks(self.project_id, absent)
        for parcel in chunk:
            for task in state.tasks.get(parcel.key, ()):
                self._mend(task.task_id, parcel.task(there))

    def _mend(self, task_id: int, task: Json) -> None:
        """Shows a task's pictures at their new addresses."""
        wanted = f"giving task {task_id} its pictures again"
        try:
            self.client.send("PATCH", f"/api/tasks/{task_id}/", wanted, {"data": task["data"]})
        except LabelStudioError as error:
            if error.status != 404:  # deleted meanwhile: it is sent anew after the next look
                raise


def _drawn(draw: Draw, wanted: Sequence[tuple[str, PushItem]]) -> Generator[_Parcel, None, None]:
    """In order; as many items are drawn ahead as make a chunk, by the largest so far."""
    left, waiting, largest = iter(wanted), deque[Future[_Parcel]](), 0
    with ThreadPoolExecutor(_DRAWERS, thread_name_prefix="push") as pool:
        try:
            while True:
                ahead = max(_DRAWERS, min(_CHUNK, CHUNK_BYTES // largest if largest else 0))
                while len(waiting) < ahead and (one := next(left, None)) is not None:
                    waiting.append(pool.submit(_parcel, draw, *one))
                if not waiting:
                    return
                parcel = waiting.popleft().result()
                largest = max(largest, parcel.size)
                yield parcel
        finally:
            for future in waiting:
                future.cancel()


def _parcel(draw: Draw, key: str, item: PushItem) -> _Parcel:
    files, task = draw(key, item)
    size = len(json.dumps(task({name: name for name in files}))) + sum(map(len, files.values()))
    return _Parcel(key, files, task, size)


def _chunks(parcels: Iterator[_Parcel]) -> Iterator[list[_Parcel]]:
    """Bounded by number and by bytes; one that is larger goes alone."""
    chunk: list[_Parcel] = []
    size = 0
    for parcel in parcels:
        if chunk and (len(chunk) == _CHUNK or size + parcel.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(parcel)
        size += parcel.size
    if chunk:
        yield chunk


def _vanished(project_id: int, missing: int, wanted: int) -> LabelStudioError:
    return LabelStudioError(
        f"project {project_id}: {missing} of {wanted} tasks are not there, or lack pictures, although they were sent; "
        "somebody deletes them, or Label Studio's log tells why"
    )


def _explained(client: LabelStudioClient, project_id: int, error: LabelStudioError) -> LabelStudioError:
    """404 does not tell whether it is the project that is gone."""
    if error.status != 404:
        return error
    try:
        if client.project(project_id) is not None:
            return error
    except LabelStudioError as other:
        return other
    return LabelStudioError(
        f"project {project_id} was deleted in Label Studio while tasks were sent to it; push again to make it anew",
        404,
    )


def jpeg(rgb: RgbImage, quality: int = _JPEG_QUALITY) -> bytes:
    """Encoded from pixels, so that no EXIF entry turns it; colours at full resolution for crisp borders."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="JPEG", quality=quality, subsampling=0)
    return file.getvalue()
