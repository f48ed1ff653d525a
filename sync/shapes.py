"""What Label Studio tells of people, projects, tasks and annotations, as records."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

Json = dict[str, Any]

UPLOADS: Final = "/data/upload/"
"""Where the server gives uploaded files, below its base address."""


@dataclass(frozen=True)
class Person:
    """Somebody who may log in."""

    user_id: int
    email: str


@dataclass(frozen=True)
class Project:
    """A project as the server has it now."""

    project_id: int
    title: str
    description: str
    label_config: str
    model_version: str
    tasks: int
    """Number of tasks; 0 where it comes from a list of projects."""


@dataclass(frozen=True)
class TaskState:
    """One task without its annotations; `item` is our key in its data, None if the task is not ours.

    `files` are the addresses of uploaded files in its data.
    """

    task_id: int
    item: str | None
    updated_at: datetime
    annotations: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotation:
    """One person's answer; `result` is Label Studio's list of regions or choices."""

    annotation_id: int
    task_id: int
    user_id: int | None
    result: list[Json]
    was_cancelled: bool
    created_at: datetime
    updated_at: datetime
    lead_time_s: float | None
    prediction_id: int | None
    ground_truth: bool = False


def read_person(user: Json) -> Person:
    """A user of any endpoint."""
    return Person(user["id"], user["email"])


def read_project(found: Json) -> Project:
    """A project, alone or from a list."""
    return Project(
        found["id"],
        found["title"],
        found.get("description") or "",
        found["label_config"],
        found.get("model_version") or "",
        found.get("task_number") or 0,
    )


def read_task(found: Json) -> TaskState:
    """A task of the Data Manager, or of the label stream."""
    item = found["data"].get("item")
    return TaskState(
        found["id"],
        item if isinstance(item, str) else None,
        datetime.fromisoformat(found["updated_at"]),
        found.get("total_annotations") or 0,
        tuple(v for v in found["data"].values() if isinstance(v, str) and UPLOADS in v),
    )


def read_annotation(found: Json, task_id: int) -> Annotation:
    """An annotation; `completed_by` is a number or an object, by endpoint and release."""
    author = found.get("completed_by")
    return Annotation(
        annotation_id=found["id"],
        task_id=task_id,
        user_id=author["id"] if isinstance(author, dict) else author,
        result=list(found["result"] or []),
        was_cancelled=bool(found.get("was_cancelled")),
        created_at=datetime.fromisoformat(found["created_at"]),
        updated_at=datetime.fromisoformat(found["updated_at"]),
        lead_time_s=found.get("lead_time"),
        prediction_id=found.get("parent_prediction"),
        ground_truth=bool(found.get("ground_truth")),
    )
