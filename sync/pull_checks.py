"""Brings the checkers' answers back: a verdict for every drawn label map, and their own map where they changed it."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mad_backend.core.checks import current_checks, dropped_images, open_images
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Check, HumanMask, ProjectRole, Verdict
from mad_backend.errors import LabelFormatError, StoreError
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.check_results import CheckAnswer, check_answer
from mad_backend.label_studio.composition import Composed, compose
from mad_backend.label_studio.results import Region
from mad_backend.pool.mask_files import write_mask
from mad_backend.store.store import Store
from sync.changes import TaskAnswers, find_changes, read_answers
from sync.check_project import author_of, check_id, checked_image, drawn_map
from sync.client import LabelStudioClient
from sync.pull import PullProgress, TaskProblem, name_of
from sync.shapes import Annotation

log = logging.getLogger(__name__)

_AT_A_TIME = 25
"""Tasks whose regions and suggestions are in memory together."""


@dataclass(frozen=True)
class CheckProgress(PullProgress):
    """Label maps that count now, of how many, and checks by each person; `rejected` images wait for author or ops."""

    rejected: tuple[str, ...] = ()


def pull_checks(
    client: LabelStudioClient,
    store: Store,
    number: int,
    labels: LabelSet,
    image_ids: Sequence[str],
    *,
    root: Path,
) -> CheckProgress:
    """Verdicts of the label maps of `image_ids` (S and T) as they are drawn now, into the store.

    A checker's own map, where it differs, is written as index PNG to root/<item key>.png. Of one task the latest answer
    counts that is not its author's. Only what changed is read; files first, rows second. Raises LabelStudioError, and
    StoreError if nothing was pushed.
    """
    project = store.remote.project(number, ProjectRole.CHECK)
    if project is None:
        raise StoreError(f"round {number} has no {ProjectRole.CHECK} project; push before pulling")
    masks = store.remote.masks(number)
    wanted = {check_id(masks[i]): masks[i] for i in image_ids if i in masks}
    changes = find_changes(client, store, number, project)
    puller = _CheckPuller(client, store, number, labels, root, client.people() if changes.to_read else {})
    for answers in read_answers(client, changes, _AT_A_TIME):
        read = {}
        for found in answers:
            mask = wanted.get(found.image_id)
            counts = mask is None or puller.pull(found, mask)
            # What does not count is read again and again, so that it is told as long as it stands.
            read[found.image_id] = found.updated_at if counts else None
        store.remote.record_read(number, ProjectRole.CHECK, read)
    listed = (replace(p, image_id=checked_image(p.image_id)) for p in (*changes.gone, *changes.problems))
    problems = (*listed, *puller.problems)
    progress = _progress(store, number, image_ids, problems)
    log.info("round %d: %d of %d label maps checked", number, progress.done, progress.total)
    return progress


@dataclass(frozen=True)
class _CheckPuller:
    client: LabelStudioClient
    store: Store
    number: int
    labels: LabelSet
    root: Path
    people: Mapping[int, str]
    problems: list[TaskProblem] = field(default_factory=list)

    def pull(self, found: TaskAnswers, mask: HumanMask) -> bool:
        """Records what became of `mask`; False where there are answers, none of which counts."""
        author = author_of(mask, self.people)
        answers = [a for a in found.annotations if not a.was_cancelled]
        own = [a for a in answers if author is not None and a.user_id == author]
        notes = [f"{mask.annotator}, who drew it, checked it too; that does not count"] if own else []
        for answer in sorted(answers, key=lambda a: (a.updated_at, a.annotation_id), reverse=True):
            check = None if answer in own else self._check(answer, found, mask, notes)
            if check:
                self.store.checks.record(self.number, check)
                return True
        self.store.checks.forget(self.number, mask.image_id, mask.sha256)
        self.problems.extend(TaskProblem(mask.image_id, found.task_id, note) for note in notes)
        self._give_back(found, is_author_busy=bool(own))
        return not answers

    def _check(
        self, answer: Annotation, found: TaskAnswers, mask: HumanMask, notes: Sequence[str]
    ) -> Check | None:
        """What one answer means; None if it cannot be read."""
        drawn = drawn_map(mask)
        begun_with = (found.predictions or {}).get(answer.prediction_id or 0)
        try:
            said = check_answer(answer.result)
            left = self._left(said, drawn, begun_with)
        except LabelFormatError as error:
            text = f"annotation {answer.annotation_id} is no check: {error}"
            log.warning("image %s: %s", mask.image_id, text)
            self.problems.append(TaskProblem(mask.image_id, found.task_id, text))
            return None
        changed_share = float((left.label_map != drawn).mean())
        verdict, reasons = _verdict(said, changed_share)
        path = sha256 = None
        if changed_share:
            path, sha256 = self._write(left.label_map, mask)
        return Check(
            image_id=mask.image_id,
            mask_sha256=mask.sha256,
            verdict=verdict,
            checker=name_of(answer, self.people),
            decided_at=answer.updated_at,
            errors=said.errors,
            annotation_id=answer.annotation_id,
            changed_share=changed_share,
            path=path,
            sha256=sha256,
            notes=(*reasons, *left.notes, *notes),
            lead_time_s=answer.lead_time_s,
        )

    def _give_back(self, found: TaskAnswers, *, is_author_busy: bool) -> None:
        """Lets others have a task that Label Studio takes for full without an answer that counts.

        Deletes skips, which hold nothing: people's, and the one that was sent along (the oldest) where its author's own
        answer keeps them away as well; together they would lock the task.
        """
        skips = sorted(a.annotation_id for a in found.annotations if a.was_cancelled)
        for annotation_id in skips if is_author_busy else skips[1:]:
            self.client.delete_annotation(annotation_id)

    def _left(self, said: CheckAnswer, drawn: LabelMap, begun_with: Sequence[Region] | None) -> Composed:
        """The label map as the checker left it."""
        height, width = drawn.shape
        parent = regions_of(drawn, self.labels) if begun_with is None else begun_with
        try:
            return compose(said.regions, self.labels, height, width, parent)
        except LabelFormatError as error:
            if said.verdict is Verdict.REJECTED:
                return Composed(drawn, (f"what the checker painted cannot be read: {error}",))
            raise

    def _write(self, label_map: LabelMap, mask: HumanMask) -> tuple[str, str]:
        key = self.store.remote.item_key(self.number, ProjectRole.CHECK, check_id(mask))
        path = self.root / f"{key}.png"
        return str(path), write_mask(path, label_map)


def _verdict(said: CheckAnswer, changed_share: float) -> tuple[Verdict, list[str]]:
    """What counts where the word and the painting say different things, and a note of it."""
    if said.verdict is Verdict.CORRECTED and not changed_share:
        return Verdict.ACCEPTED, ["called corrected, but nothing was changed"]
    notes = []
    verdict = said.verdict
    if verdict is Verdict.ACCEPTED and changed_share:
        verdict = Verdict.CORRECTED
        notes.append("called accepted, but it was changed; as changed it counts")
    if verdict is not Verdict.ACCEPTED and not said.errors:
        notes.append("no type of error was chosen")
    return verdict, notes


def _progress(
    store: Store, number: int, image_ids: Sequence[str], problems: Sequence[TaskProblem]
) -> CheckProgress:
    masks, checks = store.remote.masks(number), store.checks.all(number)
    tasks = store.remote.tasks(number, ProjectRole.SEGMENTATION)
    left = open_images(image_ids, masks, checks)
    current, dropped = current_checks(masks, checks), dropped_images(checks)
    gone = [
        TaskProblem(i, tasks.get(i), "its label map is gone; it has to be drawn again")
        for i in left
        if i not in masks
    ]
    return CheckProgress(
        done=len(image_ids) - len(left),
        total=len(image_ids),
        by_person=dict(Counter(c.checker for i, c in current.items() if c.checker and i not in dropped)),
        problems=(*problems, *gone),
        rejected=tuple(i for i in left if i in current),
    )
