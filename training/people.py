"""Who rates and draws: people at Label Studio, or an oracle that knows the masks."""

from collections.abc import Callable, Sequence
from typing import Protocol

from mad_backend.core.records import ProjectRole
from sync.client import LabelStudioClient
from sync.pull import PullProgress, pull_masks, pull_ratings
from sync.push import PushItem
from sync.rating_project import push_rating
from sync.segmentation_project import push_segmentation
from training.project import Project

Report = Callable[[str, int, int], None]
"""(what is done, done, total)."""


class People(Protocol):
    """Both methods bring the work to the people if it is not there yet, and fetch what they answered so far."""

    def rate(self, number: int, items: Sequence[PushItem], report: Report) -> PullProgress:
        """Ratings of M into the store."""

    def label(
        self, number: int, items: Sequence[PushItem], model_version: str, report: Report
    ) -> PullProgress:
        """Label maps of S and T into the store."""


class LabelStudioPeople:
    """Raters and annotators behind a Label Studio server."""

    def __init__(self, project: Project, client: LabelStudioClient) -> None:
        self._project = project
        self._client = client

    def rate(self, number: int, items: Sequence[PushItem], report: Report) -> PullProgress:
        project, store = self._project, self._project.store
        raters = project.settings.rating.raters
        if not self._is_pushed(number, ProjectRole.RATING, items):
            title = f"{project.settings.label_studio.title} round {number}: rating"

            def sent(done: int, total: int) -> None:
                report("sending M to the rating project", done, total)

            push_rating(self._client, store, number, title, project.labels, items, raters=raters, report=sent)
        return pull_ratings(self._client, store, number, wanted=raters)

    def label(
        self, number: int, items: Sequence[PushItem], model_version: str, report: Report
    ) -> PullProgress:
        project, store = self._project, self._project.store
        if not self._is_pushed(number, ProjectRole.SEGMENTATION, items):
            title = f"{project.settings.label_studio.title} round {number}: segmentation"

            def sent(done: int, total: int) -> None:
                report("sending S and T to the segmentation project", done, total)

            push_segmentation(
                self._client,
                store,
                number,
                title,
                project.labels,
                items,
                model_version=model_version,
                report=sent,
            )

        def size_of(image_id: str) -> tuple[int, int]:
            return project.reader.size(project.pool[image_id])

        root = project.masks_root / f"round-{number:03d}"
        return pull_masks(self._client, store, number, project.labels, size_of=size_of, root=root)

    def _is_pushed(self, number: int, role: ProjectRole, items: Sequence[PushItem]) -> bool:
        there = self._project.store.remote.tasks(number, role)
        return all(item.image_id in there for item in items)
