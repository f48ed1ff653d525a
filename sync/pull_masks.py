"""Brings label maps back, with exactly one class per pixel."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import HumanMask, ProjectRole
from mad_backend.errors import LabelFormatError, StoreError
from mad_backend.label_studio.composition import compose
from mad_backend.pool.mask_files import write_mask
from mad_backend.store.store import Store
from sync.changes import TaskAnswers, find_changes, read_answers
from sync.client import LabelStudioClient
from sync.pull import PullProgress, TaskProblem, name_of
from sync.shapes import Annotation

log = logging.getLogger(__name__)

_AT_A_TIME = 25
"""Tasks whose regions and suggestions are in memory together."""

SizeOf = Callable[[str], tuple[int, int]]
"""Image id -> (height, width)."""


def pull_masks(
    client: LabelStudioClient,
    store: Store,
    number: int,
    labels: LabelSet,
    *,
    size_of: SizeOf,
    root: Path,
) -> PullProgress:
    """Label maps as index PNGs (8 bit grey, the value is the class id, 255 void) at root/<item key>.png.

    Of each task the latest annotation counts that was not cancelled; where it cannot be read, or there is none, its
    image is not done. Files first, rows second, both only where something changed. Raises LabelStudioError, and
    StoreError if nothing was pushed.
    """
    project = store.remote.project(number, ProjectRole.SEGMENTATION)
    if project is None:
        raise StoreError(f"round {number} has no segmentation project; push before pulling")
    keeper = _MaskKeeper(client, store, number, labels, size_of, root)
    changes = find_changes(client, store, number, project, again=keeper.lost())
    keeper.forget([gone.image_id for gone in changes.gone])
    problems = [*changes.gone, *changes.problems]
    people = client.people() if changes.to_read else {}
    for portion in read_answers(client, changes, _AT_A_TIME):
        times = {}
        for task in portion:
            trouble = keeper.keep(task, people)
            # What a person has to mend is read, and told, every time until then.
            times[task.image_id] = None if trouble else task.updated_at
            if trouble:
                problems.append(TaskProblem(task.image_id, task.task_id, trouble))
        store.remote.record_read(number, ProjectRole.SEGMENTATION, times)
    drawn = {i: mask for i, mask in store.remote.masks(number).items() if i in changes.tasks}
    problems += [TaskProblem(i, changes.tasks[i], note) for i, mask in drawn.items() for note in mask.notes]
    by_person = Counter(mask.annotator for mask in drawn.values())
    progress = PullProgress(len(drawn), changes.total, dict(by_person), tuple(problems))
    log.info("round %d: %d of %d label maps done", number, progress.done, progress.total)
    return progress


@dataclass(frozen=True)
class _MaskKeeper:
    """Keeps rows and files of the round's label maps as people's answers are."""

    client: LabelStudioClient
    store: Store
    number: int
    labels: LabelSet
    size_of: SizeOf
    root: Path

    def lost(self) -> set[str]:
        """Images whose file is not where it belongs."""
        masks = self.store.remote.masks(self.number)
        return {
            i for i, mask in masks.items() if Path(mask.path) != self._path(i) or not self._path(i).exists()
        }

    def keep(self, task: TaskAnswers, people: Mapping[int, str]) -> str | None:
        """Brings one label map up to date; what keeps people's work from being one, else None."""
        valid = [a for a in task.annotations if not a.was_cancelled]
        if not valid:
            self.forget([task.image_id])
            who = sorted({name_of(a, people) for a in task.annotations})
            return f"skipped by {', '.join(who)}; nobody drew it: somebody else has to" if who else None
        latest = max(valid, key=lambda a: (a.updated_at, a.annotation_id))
        try:
            label_map, notes = self._label_map(latest, task)
        except LabelFormatError as error:
            self.forget([task.image_id])
            told = f"annotation {latest.annotation_id} by {name_of(latest, people)} is not a mask: {error}"
            log.warning("image %s, %s", task.image_id, told)
            return told
        others = sorted({name_of(a, people) for a in valid} - {name_of(latest, people)})
        if others:
            notes += (f"{', '.join(others)} drew it too; the latest counts, by {name_of(latest, people)}",)
        self._record(label_map, latest, task.image_id, name_of(latest, people), notes)
        return None

    def forget(self, image_ids: list[str]) -> None:
        """What people deleted, skipped or emptied is no label map any more."""
        known = self.store.remote.masks(self.number)
        gone = [i for i in image_ids if i in known]
        self.store.remote.forget_masks(self.number, gone)
        for image_id in gone:
            self._path(image_id).unlink(missing_ok=True)

    def _record(
        self,
        label_map: LabelMap,
        annotation: Annotation,
        image_id: str,
        annotator: str,
        notes: tuple[str, ...],
    ) -> None:
        path = self._path(image_id)
        mask = HumanMask(
            image_id=image_id,
            path=str(path),
            sha256=write_mask(path, label_map),
            annotator=annotator,
            annotation_id=annotation.annotation_id,
            notes=notes,
            annotator_id=annotation.user_id,
            drawn_at=annotation.updated_at,
            lead_time_s=annotation.lead_time_s,
        )
        self.store.remote.record_mask(self.number, mask)

    def _label_map(self, annotation: Annotation, task: TaskAnswers) -> tuple[LabelMap, tuple[str, ...]]:
        if not annotation.result:
            raise LabelFormatError(
                "nothing was painted; paint one dot of background if there is nothing to label"
            )
        parent = None
        notes: tuple[str, ...] = ()
        if annotation.prediction_id is not None:
            parent = (task.predictions or {}).get(annotation.prediction_id)
            if parent is None:
                notes = ("the prediction it was started from is gone; later regions won",)
        height, width = self.size_of(task.image_id)
        composed = compose(annotation.result, self.labels, height, width, parent)
        return composed.label_map, composed.notes + notes

    def _path(self, image_id: str) -> Path:
        key = self.store.remote.item_key(self.number, ProjectRole.SEGMENTATION, image_id)
        return self.root / f"{key}.png"
