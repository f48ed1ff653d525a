"""What every pull tells: how far people are, and what stands in the way, task by task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sync.shapes import Annotation

DELETED_USER: Final = "deleted user"


@dataclass(frozen=True)
class TaskProblem:
    """Something about one task that a person should look at; `text` says what and, where it is known, what to do.

    `task_id` is None for an image whose task is gone.
    """

    image_id: str
    task_id: int | None
    text: str


@dataclass(frozen=True)
class PullProgress:
    """Images answered, of how many, and how many answers that count by each person (email).

    `is_frozen`: S and T were drawn from the ratings, so that nothing changes them any more.
    """

    done: int
    total: int
    by_person: dict[str, int]
    problems: tuple[TaskProblem, ...] = ()
    is_frozen: bool = False


def name_of(annotation: Annotation, people: Mapping[int, str]) -> str:
    """Email of who answered; of people whom the server no longer knows, what is left of them."""
    if annotation.user_id is None:
        return DELETED_USER
    return people.get(annotation.user_id) or f"user-{annotation.user_id}"
