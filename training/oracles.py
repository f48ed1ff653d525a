"""Simulated raters, annotators and checkers, for the demo and for experiments on labelled data.

They know the true label maps of the pool, which nothing else in this project ever reads.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, assert_never

import numpy as np
from PIL import Image

from mad_backend.core.labels import VOID, LabelMap, LabelSet
from mad_backend.core.metrics import confusion_matrix, mean_iou
from mad_backend.core.records import (
    ErrorType,
    ProjectRole,
    RemoteProject,
    Verdict,
)
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.check_results import choice_of
from mad_backend.label_studio.label_config import ERRORS_TAG, VERDICT_TAG
from mad_backend.pool.sources import list_labelled
from mad_backend.pool.truths import Truth
from mad_backend.settings import OracleSettings
from sync.check_project import checked_image, drawn_map
from sync.client import LabelStudioClient
from training.project import Project

LEVELS = (0.35, 0.5, 0.65, 0.8)
"""Image mIoU at which an opinion changes from bad to poor, fair, good, excellent."""
SLIPS_IN = 6
"""Of so many label maps that the crowd draws, one has an error, for its checkers to find."""
WARP = 8
"""Points a side between which an outline's error is interpolated: people are off by stretches, not by pixels."""


class Oracle:
    """Answers as people who see the truth and err as settings say; the same answer to the same question."""

    def __init__(
        self, labels: LabelSet, truths: Mapping[str, Truth], seed: int, settings: OracleSettings
    ) -> None:
        self._labels, self._truth = labels, truths
        self._seed, self._settings = seed, settings

    @classmethod
    def of(cls, project: Project) -> "Oracle":
        """Of the pool of a project whose sources say where its label maps are."""
        labelled = list_labelled(project.settings.pool, project.settings.mirrors, project.labels)
        truths = {item.image.image_id: item.truth for item in labelled}
        return cls(project.labels, truths, project.settings.seed, project.settings.simulation.oracle)

    def opinion(self, image_id: str, rater: str, label_map: LabelMap) -> int | None:
        """ACR score 1..5 of the target's `label_map`, or None (out-of-domain) when no class of the set is there."""
        truth = self._truth[image_id].read()
        if not np.isin(truth, self._labels.foreground_ids).any():
            return None
        slip = self._rng("mistake", rater, image_id)
        if slip.random() < self._settings.mistakes:
            return int(slip.integers(1, len(LEVELS) + 2))
        quality = mean_iou(confusion_matrix(truth, label_map, len(self._labels)))
        bias = self._rng(rater).normal(0, self._settings.bias)
        seen = quality + bias + self._rng(rater, image_id).normal(0, self._settings.noise)
        return 1 + sum(seen >= level for level in LEVELS)

    def drawing(self, image_id: str) -> LabelMap:
        """The label map a perfect annotator draws."""
        return self._truth[image_id].read()

    def flawed_drawing(self, image_id: str) -> LabelMap:
        """The label map an annotator of these settings draws: outlines moved, an object called by another name."""
        drawn, rng = self.drawing(image_id), self._rng("drawing", image_id)
        seen = np.intersect1d(drawn, self._labels.foreground_ids)
        if len(seen) and rng.random() < self._settings.confusion:
            others = np.setdiff1d(self._labels.foreground_ids, seen)
            if len(others):
                drawn = np.where(drawn == rng.choice(seen), rng.choice(others), drawn).astype(np.uint8)
        return _warped(drawn, self._settings.boundary, rng) if self._settings.boundary else drawn

    def seconds(self, kind: Literal["rating", "mask"], *what: str) -> float:
        """How long one answer took: log-normal about the median of settings, by half."""
        median = self._settings.rating_s if kind == "rating" else self._settings.mask_s
        return float(median * np.exp(self._rng("seconds", kind, *what).normal(0, math.log(1.5))))

    def hasty_drawing(self, image_id: str) -> LabelMap:
        """The same with one class forgotten, in one of `SLIPS_IN` images that show two or more."""
        truth, rng = self.drawing(image_id), self._rng("slip", image_id)
        seen = np.intersect1d(truth, self._labels.foreground_ids)
        if len(seen) < 2 or rng.integers(SLIPS_IN):
            return truth
        return np.where(truth == rng.choice(seen), 0 if self._labels.has_background else VOID, truth).astype(
            np.uint8
        )

    def errors(self, image_id: str, drawn: LabelMap) -> tuple[ErrorType, ...]:
        """What a checker finds wrong in `drawn`; nothing where it is the truth."""
        truth = self.drawing(image_id)
        wrong = drawn != truth
        void = (drawn == VOID) | (truth == VOID)
        nothing = 0 if self._labels.has_background else VOID
        kinds = {
            ErrorType.BOUNDARY: wrong & ~void & (truth == nothing),
            ErrorType.MISSING: wrong & ~void & (drawn == nothing),
            ErrorType.WRONG_CLASS: wrong & ~void & (truth != nothing) & (drawn != nothing),
            ErrorType.VOID: wrong & void,
        }
        return tuple(kind for kind, where in kinds.items() if where.any())

    def _rng(self, *parts: str) -> np.random.Generator:
        digest = hashlib.sha256("\n".join((str(self._seed), *parts)).encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class SimulatedCrowd:
    """Three people at their browsers, as far as the server can tell: each takes the next task and answers it.

    `clients` is email -> a client with that person's own token.
    """

    def __init__(self, project: Project, clients: Mapping[str, LabelStudioClient]) -> None:
        self._project = project
        self._clients = clients
        self._oracle = Oracle.of(project)

    def work(
        self,
        number: int,
        role: ProjectRole,
        label_map_of: Callable[[str], LabelMap],
        is_stopped: Callable[[], bool],
    ) -> int:
        """Everybody answers until the label stream has nothing left for them; returns how many answers were given."""
        projects = self._project.store.remote.projects(number, role)
        answered: list[int] = []
        failures: list[Exception] = []

        def one(email: str) -> None:
            try:
                own = [remote for remote in projects if remote.seat in ("", email)]
                answered.extend(self._answer_all(email, number, p, label_map_of, is_stopped) for p in own)
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
        number: int,
        remote: RemoteProject,
        label_map_of: Callable[[str], LabelMap],
        is_stopped: Callable[[], bool],
    ) -> int:
        client, answers = self._clients[email], 0
        while not is_stopped() and (task := client.next_task(remote.project_id)) is not None:
            name = self._project.store.remote.image_of_item(task.item or "")
            if name is None:
                return answers  # its row is not written yet: the push is still going on
            match remote.role:
                case ProjectRole.RATING:
                    score = self._oracle.opinion(name, email, label_map_of(name))
                    result, seconds = [_choice(score)], 2.0
                case ProjectRole.SEGMENTATION:
                    result, seconds = regions_of(self._drawing(name), self._project.labels), 60.0
                case ProjectRole.CHECK:
                    result, seconds = self._check(number, name), 20.0
                case _:
                    assert_never(remote.role)
            client.create_annotation(task.task_id, result, lead_time=seconds)
            answers += 1
        return answers

    def _drawing(self, image_id: str) -> LabelMap:
        is_checked = self._project.settings.check.enabled
        return self._oracle.hasty_drawing(image_id) if is_checked else self._oracle.drawing(image_id)

    def _check(self, number: int, name: str) -> list[dict[str, Any]]:
        """Accepted, or corrected to the truth; `name` is a check id."""
        image_id = checked_image(name)
        errors = self._oracle.errors(image_id, drawn_map(self._project.store.remote.masks(number)[image_id]))
        verdict = choice_of(VERDICT_TAG, Verdict.CORRECTED if errors else Verdict.ACCEPTED)
        regions = regions_of(self._oracle.drawing(image_id), self._project.labels)
        return [verdict, *([choice_of(ERRORS_TAG, *errors)] if errors else []), *regions]


def _warped(label_map: LabelMap, pixels: int, rng: np.random.Generator) -> LabelMap:
    """The map with every place moved by at most `pixels` either way, neighbouring places alike."""
    height, width = label_map.shape
    coarse = rng.uniform(-pixels, pixels, (2, WARP, WARP)).astype(np.float32)
    moved = [
        np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR))
        for part in coarse
    ]
    rows = np.clip(np.rint(np.arange(height)[:, None] + moved[0]), 0, height - 1).astype(np.intp)
    columns = np.clip(np.rint(np.arange(width)[None, :] + moved[1]), 0, width - 1).astype(np.intp)
    warped: LabelMap = label_map[rows, columns]
    return warped


def _choice(score: int | None) -> dict[str, Any]:
    value = {"choices": ["ood" if score is None else str(score)]}
    return {"from_name": "quality", "to_name": "overlay", "type": "choices", "value": value}
