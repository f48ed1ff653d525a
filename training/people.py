"""Who rates, draws and checks: people at Label Studio, or an oracle that knows the masks."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.errors import LabelStudioError
from mad_backend.settings import Secrets
from sync.check_project import are_pushed, check_items, drawn_in, push_checks
from sync.client import LabelStudioClient
from sync.connection import connect
from sync.hosts import picture_host
from sync.projects import ensure_picture_project
from sync.pull import PullProgress
from sync.pull_checks import CheckProgress, pull_checks
from sync.pull_masks import pull_masks
from sync.pull_ratings import pull_ratings
from sync.push import PushItem
from sync.raters import set_up_raters
from sync.rating_project import are_ratings_pushed, push_ratings
from sync.segmentation_project import push_segmentation
from sync.webhooks import ensure_webhook, webhook_address
from training.project import Project
from training.starting import starting_maps

log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]
"""(what is done, done, total)."""


class People(Protocol):
    """Every method brings the work to the people if it is not there yet, and fetches what they answered so far."""

    def rate(self, number: int, items: Sequence[PushItem], report: Report) -> PullProgress:
        """Ratings of M into the store."""

    def label(
        self, number: int, items: Sequence[PushItem], model_version: str, report: Report
    ) -> PullProgress:
        """Label maps of S and T into the store."""

    def check(self, number: int, items: Sequence[PushItem], report: Report) -> CheckProgress:
        """Verdicts of the label maps of S and T, as drawn now, into the store."""


class LabelStudioPeople:
    """Raters and annotators behind a Label Studio server."""

    def __init__(self, project: Project, client: LabelStudioClient) -> None:
        self._project = project
        self._client = client

    def rate(self, number: int, items: Sequence[PushItem], report: Report) -> PullProgress:
        store, rating = self._project.store, self._project.settings.rating
        if not are_ratings_pushed(store, number, rating, items):
            self._send_to_rate(number, items, report)
        return pull_ratings(self._client, store, number, wanted=rating.raters)

    def label(
        self, number: int, items: Sequence[PushItem], model_version: str, report: Report
    ) -> PullProgress:
        self._send_to_draw(number, items, model_version, report)
        return self._pull_masks(number)

    def check(self, number: int, items: Sequence[PushItem], report: Report) -> CheckProgress:
        project, store = self._project, self._project.store
        self._pull_redrawn(number, items, report)
        wanted = check_items(store, number, items)
        if not are_pushed(store, number, wanted):
            title = f"{project.settings.label_studio.title} round {number}: cross-check"

            def sent(done: int, total: int) -> None:
                report("sending label maps to the cross-check project", done, total)

            host = picture_host(project.settings, store, self._client, drawn_in(self._client, store, number))
            pushed = push_checks(
                self._client, store, number, title, project.labels, wanted, report=sent, host=host
            )
            self._hasten([pushed])
        image_ids = [item.image_id for item in items]
        return pull_checks(
            self._client, store, number, project.labels, image_ids, root=self._masks_root(number)
        )

    def _send_to_rate(self, number: int, items: Sequence[PushItem], report: Report) -> None:
        """The rating project, or one for each seat, as far as it is not there; and Enter for raters we know."""
        project, secrets = self._project, Secrets()
        title = f"{project.settings.label_studio.title} round {number}: rating"

        def sent(done: int, total: int) -> None:
            report("sending M to the rating project", done, total)

        set_up_raters(
            secrets.rater_tokens,
            lambda token: connect(project.settings, secrets.model_copy(update={"label_studio_token": token})),
        )
        host = picture_host(
            project.settings,
            project.store,
            self._client,
            lambda: ensure_picture_project(self._client, project.store, number, title),
        )
        pushed = push_ratings(
            self._client,
            project.store,
            number,
            title,
            project.labels,
            items,
            project.settings.rating,
            report=sent,
            host=host,
        )
        self._hasten(pushed)

    def _hasten(self, projects: Sequence[RemoteProject]) -> None:
        """Has Label Studio tell `mad serve` of answers, where it can be reached."""
        settings = self._project.settings
        if settings.serve.public_url is None or not settings.label_studio.webhooks:
            return
        secret = Secrets().webhook_secret
        for project in projects:
            ensure_webhook(
                self._client, project.project_id, webhook_address(settings.serve.public_url), secret
            )

    def _pull_redrawn(self, number: int, items: Sequence[PushItem], report: Report) -> None:
        """Authors may draw again while others check: a check is of one version of a label map."""
        try:
            self._pull_masks(number)
        except LabelStudioError as error:
            if error.status != 404:
                raise
            # Sent anew, the segmentation project would be empty, and all that was drawn be lost.
            log.warning("round %d: label maps count as they were drawn: %s", number, error)
            return
        version = self._project.target_of(self._project.store.rounds.get(number)).version
        self._send_to_draw(number, items, version, report)

    def _send_to_draw(
        self, number: int, items: Sequence[PushItem], model_version: str, report: Report
    ) -> None:
        """The segmentation project with a task for each of `items`, as far as it is not there."""
        project, store = self._project, self._project.store
        if self._is_pushed(number, ProjectRole.SEGMENTATION, items):
            return
        title = f"{project.settings.label_studio.title} round {number}: segmentation"

        def sent(done: int, total: int) -> None:
            report("sending S and T to the segmentation project", done, total)

        with starting_maps(project, model_version) as starting:
            pushed = push_segmentation(
                self._client,
                store,
                number,
                title,
                project.labels,
                items,
                model_version=model_version,
                report=sent,
                host=picture_host(project.settings, store, self._client),
                starting=starting,
                settings=project.settings.segmentation,
            )
        self._hasten([pushed])

    def _pull_masks(self, number: int) -> PullProgress:
        project = self._project

        def size_of(image_id: str) -> tuple[int, int]:
            return project.reader.size(project.pool[image_id])

        root = self._masks_root(number)
        return pull_masks(self._client, project.store, number, project.labels, size_of=size_of, root=root)

    def _masks_root(self, number: int) -> Path:
        return self._project.masks_root / f"round-{number:03d}"

    def _is_pushed(self, number: int, role: ProjectRole, items: Sequence[PushItem]) -> bool:
        there = self._project.store.remote.tasks(number, role)
        return all(item.image_id in there for item in items)
