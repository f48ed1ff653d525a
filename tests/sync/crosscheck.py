"""A round whose label maps are drawn, and what people answer to its cross-check."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Check, ProjectRole
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.check_results import choice_of
from mad_backend.label_studio.label_config import ERRORS_TAG, VERDICT_TAG
from mad_backend.store.store import Store
from sync.check_project import check_id, check_items, push_checks
from sync.client import LabelStudioClient
from sync.pull_checks import CheckProgress, pull_checks
from sync.pull_masks import pull_masks
from sync.push import PushItem
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.test_push import LABELS, items, picture, silent

Answer = list[dict[str, Any]]


def name(n: int) -> str:
    return f"secret-name-{n:03d}"


def changed(label_map: LabelMap) -> LabelMap:
    """Eight pixels of dog where a cat was."""
    other = label_map.copy()
    other[12:14, 44:48] = 2
    return other


def check_of(verdict: str, label_map: LabelMap | None = None, *errors: str) -> Answer:
    named = [choice_of(ERRORS_TAG, *errors)] if errors else []
    return [
        choice_of(VERDICT_TAG, verdict),
        *named,
        *(regions_of(label_map, LABELS) if label_map is not None else []),
    ]


class Crosscheck:
    """A round whose label maps are drawn: image n by the person `authors` names (0 ann, 1 bob, ...)."""

    def __init__(self, running: RunningLabelStudio, store: Store, root: Path, authors: Sequence[int]) -> None:
        self.running, self.store, self.root = running, store, root
        self.photos: list[PushItem] = items(len(authors))
        self.images = [photo.image_id for photo in self.photos]
        push_segmentation(
            running.admin, store, 1, "Drawn", LABELS, self.photos, model_version="f0", report=silent
        )
        tasks = store.remote.tasks(1, ProjectRole.SEGMENTATION)
        self.drawings = [
            running.raters[author].create_annotation(tasks[name(n)], regions_of(picture(n)[1], LABELS))
            for n, author in enumerate(authors)
        ]
        self.pull_masks()

    def pull_masks(self) -> None:
        pull_masks(self.running.admin, self.store, 1, LABELS, size_of=lambda _: (60, 80), root=self.root)

    def push(self) -> None:
        wanted = check_items(self.store, 1, self.photos)
        push_checks(self.running.admin, self.store, 1, "Cross-check", LABELS, wanted, report=silent)

    def pull(self) -> CheckProgress:
        return pull_checks(self.running.admin, self.store, 1, LABELS, self.images, root=self.root)

    @property
    def project_id(self) -> int:
        project = self.store.remote.project(1, ProjectRole.CHECK)
        assert project
        return project.project_id

    def task(self, n: int) -> int:
        return self.store.remote.tasks(1, ProjectRole.CHECK)[check_id(self.store.remote.masks(1)[name(n)])]

    def checks(self) -> dict[str, Check]:
        return {check.image_id: check for check in self.store.checks.all(1)}

    def work(self, client: LabelStudioClient, answer: Callable[[int], Answer]) -> list[int]:
        """Answers what the label stream gives; which images that were."""
        known = {self.task(n): n for n in range(len(self.images))}
        given = []
        while task := client.next_task(self.project_id):
            given.append(known[task.task_id])
            client.create_annotation(task.task_id, answer(given[-1]), lead_time=20.5)
        return given


def accept(n: int) -> Answer:
    return check_of("accepted", picture(n)[1])
