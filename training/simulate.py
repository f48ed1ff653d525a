"""Simulated raters and annotators, for the demo and for experiments on labelled data.

They know the true label maps of the pool, which nothing else in this project ever reads.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import confusion_matrix, mean_iou
from mad_backend.core.records import HumanMask, ProjectRole, Rating
from mad_backend.label_studio.results import regions_of
from mad_backend.pool.images import read_label_map
from mad_backend.pool.sources import list_labelled
from sync.client import LabelStudioClient
from sync.pull import PullProgress
from sync.push import PushItem
from training.people import Report
from training.project import Project

LEVELS = (0.35, 0.5, 0.65, 0.8)
"""Image mIoU at which an opinion changes from bad to poor, fair, good, excellent."""
NOISE = 0.06
"""Standard deviation of a rater's impression of quality, in mIoU; each rater also has a bias of half as much."""


class Oracle:
    """Answers as a person who sees the truth, with a rater's noise; the same answer to the same question."""

    def __init__(self, project: Project) -> None:
        self._labels = project.labels
        self._seed = project.settings.seed
        labelled = list_labelled(project.settings.pool, project.settings.mirrors)
        self._truth = {item.image.image_id: item.mask for item in labelled}

    def opinion(self, image_id: str, rater: str, label_map: LabelMap) -> int | None:
        """ACR score 1..5 of the target's `label_map`, or None (out-of-domain) when no class of the set is there."""
        truth = read_label_map(self._truth[image_id])
        if not np.isin(truth, self._labels.foreground_ids).any():
            return None
        quality = mean_iou(confusion_matrix(truth, label_map, len(self._labels)))
        bias = self._rng(rater).normal(0, NOISE / 2)
        seen = quality + bias + self._rng(rater, image_id).normal(0, NOISE)
        return 1 + sum(seen >= level for level in LEVELS)

    def drawing(self, image_id: str) -> LabelMap:
        """The label map a perfect annotator draws."""
        return read_label_map(self._truth[image_id])

    def _rng(self, *parts: str) -> np.random.Generator:
        digest = hashlib.sha256("\n".join((str(self._seed), *parts)).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class OraclePeople:
    """Rates and draws straight into the store: experiments without a server."""

    def __init__(self, project: Project, raters: int) -> None:
        self._project = project
        self._oracle = Oracle(project)
        self._raters = [f"rater-{n + 1}" for n in range(raters)]

    def rate(self, number: int, items: Sequence[PushItem], report: Report) -> PullProgress:
        ratings = []
        for done, item in enumerate(items):
            label_map = item.load()[1]
            for order, rater in enumerate(self._raters):
                score = self._oracle.opinion(item.image_id, rater, label_map)
                at = datetime.fromtimestamp(done, UTC)
                ratings.append(Rating(item.image_id, rater, score, done * len(self._raters) + order, at))
            report("rating", done + 1, len(items))
        self._project.store.remote.record_ratings(number, ratings)
        return PullProgress(len(items), len(items), dict.fromkeys(self._raters, len(items)))

    def label(
        self, number: int, items: Sequence[PushItem], model_version: str, report: Report
    ) -> PullProgress:
        root = self._project.masks_root / f"round-{number:03d}"
        root.mkdir(parents=True, exist_ok=True)
        for done, item in enumerate(items):
            key = self._project.store.remote.item_key(number, ProjectRole.SEGMENTATION, item.image_id)
            path = root / f"{key}.png"
            temporary = path.with_suffix(".tmp")
            Image.fromarray(self._oracle.drawing(item.image_id)).save(temporary, format="PNG")
            temporary.replace(path)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            mask = HumanMask(item.image_id, str(path), digest, self._raters[done % len(self._raters)], done)
            self._project.store.remote.record_mask(number, mask)
            report("drawing", done + 1, len(items))
        return PullProgress(len(items), len(items), {})


class SimulatedCrowd:
    """Three people at their browsers, as far as the server can tell: each takes the next task and answers it.

    `clients` is email -> a client with that person's own token.
    """

    def __init__(self, project: Project, clients: Mapping[str, LabelStudioClient]) -> None:
        self._project = project
        self._clients = clients
        self._oracle = Oracle(project)

    def work(
        self,
        number: int,
        role: ProjectRole,
        label_map_of: Callable[[str], LabelMap],
        is_stopped: Callable[[], bool],
    ) -> int:
        """Everybody answers until the label stream has nothing left for them; returns how many answers were given."""
        remote = self._project.store.remote.project(number, role)
        if remote is None:
            return 0
        answered: list[int] = []
        failures: list[Exception] = []

        def one(email: str) -> None:
            try:
                answered.append(self._answer_all(email, role, remote.project_id, label_map_of, is_stopped))
            except Exception as error:  # noqa: BLE001 - a thread has no caller to raise to
                failures.append(error)

        threads = [threading.Thread(target=one, args=(email,), daemon=True) for email in self._clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return sum(answered)

    def _answer_all(
        self,
        email: str,
        role: ProjectRole,
        project_id: int,
        label_map_of: Callable[[str], LabelMap],
        is_stopped: Callable[[], bool],
    ) -> int:
        client, answers = self._clients[email], 0
        while not is_stopped() and (task := client.next_task(project_id)) is not None:
            image_id = self._project.store.remote.image_of_item(task.item or "")
            if image_id is None:
                return answers  # its row is not written yet: the push is still going on
            if role is ProjectRole.RATING:
                score = self._oracle.opinion(image_id, email, label_map_of(image_id))
                result = [_choice(score)]
            else:
                result = regions_of(self._oracle.drawing(image_id), self._project.labels)
            client.create_annotation(
                task.task_id, result, lead_time=2.0 if role is ProjectRole.RATING else 60.0
            )
            answers += 1
        return answers


def _choice(score: int | None) -> dict[str, object]:
    value = {"choices": ["ood" if score is None else str(score)]}
    return {"from_name": "quality", "to_name": "overlay", "type": "choices", "value": value}
