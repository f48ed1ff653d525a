"""Tasks that are there twice: a request that nobody waited for any more was carried out after it had been repeated."""

import logging
from collections.abc import Sequence

from mad_backend.errors import LabelStudioError
from sync.client import LabelStudioClient, TaskState

log = logging.getLogger(__name__)


def tasks_by_item(client: LabelStudioClient, project_id: int) -> dict[str, list[TaskState]]:
    """Item key -> its tasks, oldest first."""
    found: dict[str, list[TaskState]] = {}
    for task in client.tasks(project_id):
        if task.item is not None:
            found.setdefault(task.item, []).append(task)
    return found


def keep_one(client: LabelStudioClient, tasks: Sequence[TaskState]) -> int:
    """Id of the task to keep: the oldest that has annotations, else the oldest; deletes untouched others.

    Raises LabelStudioError.
    """
    kept = min(tasks, key=lambda task: (task.annotations == 0, task.task_id))
    for task in tasks:
        if task is kept:
            continue
        if task.annotations or _has_work(client, task.task_id):
            log.warning("task %d is a twin of task %d, and people worked on both", task.task_id, kept.task_id)
        else:
            _delete(client, task.task_id)
    return kept.task_id


def _has_work(client: LabelStudioClient, task_id: int) -> bool:
    """True if somebody answered, skipped or began it, as of now; only the list of drafts has everybody's."""
    try:
        task = client.get(f"/api/tasks/{task_id}/", f"looking at task {task_id}")
        drafts = client.get(f"/api/tasks/{task_id}/drafts", f"reading the drafts of task {task_id}")
    except LabelStudioError as error:
        if error.status != 404:
            raise
        return False
    # What was sent with a task keeps the id it was sent with.
    answers = [a for a in task["annotations"] if a.get("import_id") is None]
    return bool(answers or drafts)


def _delete(client: LabelStudioClient, task_id: int) -> None:
    try:
        client.delete_task(task_id)
    except LabelStudioError as error:
        if error.status != 404:
            raise
    log.info("task %d was a twin and is deleted", task_id)
