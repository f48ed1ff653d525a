"""Which tasks of a project changed since they were last read, and what people answered there.

`remote_tasks.read_at` remembers each task's own time of change, so that a new process goes on where another stopped.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mad_backend.core.records import RemoteProject
from mad_backend.errors import LabelStudioError
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.projects import check_labels
from sync.pull import TaskProblem
from sync.shapes import Annotation, Json, TaskState, read_annotation, read_task
from sync.snapshot import whole_project

log = logging.getLogger(__name__)

_OVERLAP: Final = timedelta(minutes=2)
"""How far before the newest change the server is asked again: clocks differ, and slow writers commit late."""
_FEW: Final = 100
_LARGE_PART: Final = 0.4
"""From so large a part of a project's tasks on it is cheaper for Label Studio to give the whole (1.7 ms of its time a
task with three answers) than to list what is wanted (4.2 ms)."""


@dataclass(frozen=True)
class TaskAnswers:
    """Everybody's annotations of one task, cancelled ones too; `predictions` are its suggestions, id -> regions.

    `updated_at` is the task's own time of change before its annotations were read; None where nothing told it.
    """

    image_id: str
    task_id: int
    updated_at: datetime | None
    annotations: tuple[Annotation, ...] = ()
    predictions: Mapping[int, list[Json]] | None = None


@dataclass(frozen=True)
class Changes:
    """What is to be read of a project: image id -> task id, and the times of change that are known.

    `tasks` are those that were pushed and are still there, image id -> task id; `gone` the others. `whole` is the
    project by task id, where all of it was read already.
    """

    project: RemoteProject
    tasks: Mapping[str, int]
    to_read: Mapping[str, int]
    times: Mapping[int, datetime]
    gone: tuple[TaskProblem, ...] = ()
    problems: tuple[TaskProblem, ...] = ()
    whole: Mapping[int, Json] | None = None

    @property
    def total(self) -> int:
        return len(self.tasks) + len(self.gone)


def find_changes(
    client: LabelStudioClient,
    store: Store,
    number: int,
    project: RemoteProject,
    again: Collection[str] = (),
) -> Changes:
    """Compares the project with what was read before; `again` are images to read whether or not they changed.

    Tasks that people deleted are forgotten, so that the next push sends them anew; all of them if the project is gone,
    which raises LabelStudioError (404).
    """
    role, seat = project.role, project.seat
    count = _count(client, store, number, project)
    pushed = store.remote.tasks(number, role, seat)
    items = {task_id: store.remote.item_key(number, role, i, seat) for i, task_id in pushed.items()}
    read = store.remote.read_times(number, role, seat)
    unread = {i for i, task_id in pushed.items() if task_id not in read or i in again}
    whole = since = None
    if _are_many(len(unread), len(pushed)):
        whole = _whole(client, project)
        listed = {task_id: read_task(task) for task_id, task in whole.items()}
    else:
        if count == len(pushed) and read and len(unread) <= _FEW:
            since = max(read.values()) - _OVERLAP
        listed = {t.task_id: t for t in client.tasks(project.project_id, changed_since=since)}
        if since and not all(_is_ours(task, items) for task in listed.values()):
            # Somebody added a task of their own; the number of tasks then does not tell whether ours are all there.
            since = None
            listed = {t.task_id: t for t in client.tasks(project.project_id)}
    ours = {task_id for task_id, task in listed.items() if _is_ours(task, items)}
    there = pushed if since else {i: task_id for i, task_id in pushed.items() if task_id in ours}
    times = {t.task_id: t.updated_at for t in listed.values()}
    to_read = {
        i: task_id
        for i, task_id in there.items()
        if i in unread or (task_id in times and times[task_id] != read.get(task_id))
    }
    gone = [
        TaskProblem(i, task_id, f"task {task_id} was deleted in Label Studio; it is sent anew")
        for i, task_id in pushed.items()
        if i not in there
    ]
    if gone:
        log.warning("round %d: %d tasks of project %d were deleted", number, len(gone), project.project_id)
        store.remote.record_tasks(number, role, there, seat)
    twins = _twins(store, number, project, there, listed)
    if whole is None and _are_many(len(to_read), len(pushed)):
        whole = _whole(client, project)
    return Changes(project, there, to_read, times, tuple(gone), tuple(twins), whole)


def read_answers(
    client: LabelStudioClient, changes: Changes, at_a_time: int = 200
) -> Iterator[list[TaskAnswers]]:
    """The answers of every task in `changes.to_read`, in portions; raises LabelStudioError."""
    wanted = list(changes.to_read.items())
    for start in range(0, len(wanted), at_a_time):
        portion = wanted[start : start + at_a_time]
        found = changes.whole
        if found is None:
            found = _listed(client, changes.project.project_id, [task_id for _, task_id in portion])
        yield [_answers(i, task_id, found.get(task_id), changes.times.get(task_id)) for i, task_id in portion]


def _is_ours(task: TaskState, items: Mapping[int, str]) -> bool:
    """By id and item key: on SQLite, Label Studio gives the id of a deleted newest task to the next one made."""
    return task.task_id in items and items[task.task_id] == task.item


def _are_many(count: int, tasks: int) -> bool:
    return count > max(_FEW, _LARGE_PART * tasks)


def _whole(client: LabelStudioClient, project: RemoteProject) -> dict[int, Json]:
    return {task["id"]: task for task in whole_project(client, project.project_id)}


def _count(client: LabelStudioClient, store: Store, number: int, project: RemoteProject) -> int:
    """The project's number of tasks, if it is still there with its labels as made."""
    there = client.project(project.project_id)
    if there is None:
        store.remote.record_tasks(number, project.role, {}, project.seat)
        whose = f" of {project.seat}" if project.seat else ""
        raise LabelStudioError(
            f"project {project.project_id} ({project.role}{whose}, round {number}) was deleted in Label Studio; "
            f"`mad retry {number}` makes it anew",
            404,
        )
    check_labels(there, project)
    return there.tasks


def _twins(
    store: Store,
    number: int,
    project: RemoteProject,
    there: Mapping[str, int],
    listed: Mapping[int, TaskState],
) -> list[TaskProblem]:
    """Answered tasks that show an image another task stands for; they are left of an interrupted import."""
    known = set(there.values())
    strangers = [t for t in listed.values() if t.task_id not in known and t.annotations]
    if not strangers:
        return []
    images = {store.remote.item_key(number, project.role, i, project.seat): i for i in there}
    return [
        TaskProblem(
            images[t.item],
            t.task_id,
            f"task {t.task_id} is a twin of task {there[images[t.item]]}; its answers do not count: delete one of them",
        )
        for t in strangers
        if t.item in images
    ]


def _listed(client: LabelStudioClient, project_id: int, task_ids: Sequence[int]) -> dict[int, Json]:
    only = {"filter": "filter:tasks:id", "operator": "in_list", "type": "Number", "value": list(task_ids)}
    params = {
        "project": project_id,
        "fields": "all",
        "query": json.dumps({"filters": {"conjunction": "and", "items": [only]}}),
    }
    wanted = f"reading the answers of project {project_id}"
    return {t["id"]: t for t in client.pages("/api/tasks/", wanted, params, "tasks")}


def _answers(image_id: str, task_id: int, found: Json | None, listed_at: datetime | None) -> TaskAnswers:
    if found is None:
        return TaskAnswers(image_id, task_id, listed_at)
    own = datetime.fromisoformat(found["updated_at"])
    return TaskAnswers(
        image_id,
        task_id,
        # The earlier of two: what came in between is then read again, not missed.
        min(own, listed_at) if listed_at else own,
        tuple(read_annotation(a, task_id) for a in found["annotations"]),
        {p["id"]: list(p["result"] or []) for p in found.get("predictions") or ()},
    )
