"""Masks of any project of the server as extra training data: images, index PNGs, and the manifest that names both."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mad_backend.errors import ImageError, LabelFormatError, PoolError
from mad_backend.label_studio.any_project import LabelMapping, MaskInterface, mask_interface
from mad_backend.label_studio.composition import compose
from mad_backend.label_studio.regions import labelled_areas
from mad_backend.label_studio.results import Region
from mad_backend.pool.files import Options, read_bytes
from mad_backend.pool.images import image_size
from mad_backend.pool.mask_files import write_mask
from mad_backend.pool.sources import MIRROR_MANIFEST
from sync.client import LabelStudioClient
from sync.pool import Report, copy_name, fetch_all, forget, locked, place_of, write_whole
from sync.shapes import Annotation, Project

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
"""Questions; a small server has annotators to serve too."""
_CHUNK: Final = 32
"""Annotations in memory at once: those with brush masks have megabytes."""
_JOURNAL: Final = "pulled.jsonl"
"""What came of each task, in the folder; a run that was stopped goes on from it."""
_OURS: Final = re.compile(r"\bmad-[0-9a-f]{24}\b")


@dataclass(frozen=True)
class ForeignReport:
    """What a pull found: masks in the manifest, how many of them were made now, and why tasks are left out.

    `left_out` is task id -> reason, `notes` task id -> what was odd about its mask; `unlabelled` tasks have no answer.
    """

    project: Project
    manifest: Path
    masks: int
    made: int
    unlabelled: int
    left_out: Mapping[int, str]
    notes: Mapping[int, tuple[str, ...]]


@dataclass(frozen=True)
class _Task:
    """A task that somebody labelled; `stamp` changes whenever its mask may, `place` is where its image is."""

    task_id: int
    place: str
    stamp: str

    @property
    def mask(self) -> str:
        return f"masks/{self.task_id}-{self.stamp}.png"

    @property
    def image(self) -> str:
        """A file of the folder for what only the server can give, else the address."""
        is_ours = self.place.startswith("/")
        return f"images/{copy_name(self.task_id, self.place)}" if is_ours else self.place


@dataclass(frozen=True)
class _Answer:
    """The annotation of a task that counts: its regions, and which class their labels are."""

    annotation_id: int
    regions: Sequence[Region]
    names: Mapping[str, int]


@dataclass(frozen=True)
class _Outcome:
    """What came of a task: a mask (no `reason`), or why there is none; `lasting` until the task changes."""

    stamp: str
    reason: str = ""
    notes: tuple[str, ...] = ()
    lasting: bool = True


def pull_foreign(
    client: LabelStudioClient,
    project_id: int,
    mapping: LabelMapping,
    folder: Path,
    *,
    image_field: str | None = None,
    options: Options | None = None,
    report: Report = lambda _done, _total: None,
) -> ForeignReport:
    """Brings `folder` up to date with the masks of a project: images/, masks/ and manifest.jsonl, the last at the end.

    Of several annotations of a task the one marked as ground truth counts, else the latest that was not cancelled.
    What did not change is not fetched again; what was deleted goes. Images of other stores stay where they are, read
    with `options`. Raises PoolError where the project does not fit, LabelFormatError where labels map to nothing,
    LabelStudioError when the server cannot be reached.
    """
    project = client.project(project_id)
    if project is None:
        raise PoolError(f"{client.url} has no project {project_id} that this token may see")
    what = _named(project)
    if _OURS.search(project.description):
        raise PoolError(
            f"{what} is a project of rounds, which take its answers themselves; give one of your own"
        )
    try:
        interface = mask_interface(project.label_config, image_field)
        mapping.ids_of(interface.labels)
    except LabelFormatError as error:
        raise LabelFormatError(f"{what}: {error}") from error
    with locked(folder):
        return _Puller(client, project, interface, mapping, folder, options or {}).pull(report)


@dataclass(frozen=True)
class _Puller:
    client: LabelStudioClient
    project: Project
    interface: MaskInterface
    mapping: LabelMapping
    folder: Path
    options: Options
    outcomes: dict[int, _Outcome] = field(default_factory=dict)

    @property
    def what(self) -> str:
        return _named(self.project)

    def pull(self, report: Report) -> ForeignReport:
        before = self._read_journal()
        tasks, left_out, unlabelled = self._tasks()
        for task in tasks:
            known = before.get(task.task_id)
            if known and known.stamp == task.stamp and (known.reason or self._has_files(task)):
                self.outcomes[task.task_id] = known
        todo = [task for task in tasks if task.task_id not in self.outcomes]
        made = 0
        for start in range(0, len(todo), _CHUNK):
            made += self._pull_chunk(todo[start : start + _CHUNK])
            report(min(start + _CHUNK, len(todo)), len(todo))
        taken = [task for task in tasks if not self.outcomes[task.task_id].reason]
        self._finish(taken)
        left_out |= {i: outcome.reason for i, outcome in self.outcomes.items() if outcome.reason}
        notes = {i: outcome.notes for i, outcome in self.outcomes.items() if outcome.notes}
        log.info("%s: %d masks, %d made now, %d tasks left out", self.what, len(taken), made, len(left_out))
        manifest = self.folder / MIRROR_MANIFEST
        return ForeignReport(
            self.project, manifest, len(taken), made, unlabelled, dict(sorted(left_out.items())), notes
        )

    def _tasks(self) -> tuple[list[_Task], dict[int, str], int]:
        """Labelled tasks by id, reasons against others, and how many nobody touched."""
        params = {
            "project": self.project.project_id,
            "include": "id,data,updated_at,total_annotations,cancelled_annotations",
            "resolve_uri": "false",
        }
        tasks, left_out, untouched = [], {}, 0
        # Another mapping or label set, another mask.
        labels, given = self.mapping.labels, sorted(self.mapping.given.items())
        rules = f"{labels.names} {labels.has_background} {given} {self.interface.image_tag}"
        for found in self.client.pages("/api/tasks/", f"listing the tasks of {self.what}", params, "tasks"):
            task_id = int(found["id"])
            if not found.get("total_annotations"):
                if found.get("cancelled_annotations"):
                    left_out[task_id] = "skipped"
                else:
                    untouched += 1
                continue
            try:
                place = place_of(self.client, found["data"], self.interface.field)
            except ValueError as error:
                left_out[task_id] = str(error)
                continue
            stamp = hashlib.sha256(f"{found['updated_at']} {place} {rules}".encode()).hexdigest()[:16]
            tasks.append(_Task(task_id, place, stamp))
        return sorted(tasks, key=lambda task: task.task_id), left_out, untouched

    def _pull_chunk(self, tasks: Sequence[_Task]) -> int:
        """Images and masks of some tasks into the folder, then their outcomes into the journal; how many masks."""
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="foreign") as pool:
            answers = dict(zip(tasks, pool.map(lambda t: self._answer(t.task_id), tasks), strict=True))
        wanted = [task for task in tasks if not isinstance(answers[task], str)]
        copies = [
            (task.task_id, task.place, self.folder / task.image)
            for task in wanted
            if task.place.startswith("/") and not (self.folder / task.image).exists()
        ]
        failed = fetch_all(self.client, copies, lambda _done, _total: None)
        outcomes = {}
        for task in tasks:
            answer = answers[task]
            if isinstance(answer, str):
                outcomes[task.task_id] = _Outcome(task.stamp, answer)
            elif task.task_id in failed:
                outcomes[task.task_id] = _Outcome(task.stamp, failed[task.task_id], lasting=False)
            else:
                outcomes[task.task_id] = self._mask(task, answer)
        self.outcomes.update(outcomes)
        with (self.folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            journal.writelines(self._line(i, outcome) for i, outcome in outcomes.items() if outcome.lasting)
        return sum(not outcome.reason for outcome in outcomes.values())

    def _answer(self, task_id: int) -> _Answer | str:
        """What was drawn, or why nothing can be made of it."""
        valid = [a for a in self.client.annotations(task_id) if not a.was_cancelled]
        if not valid:
            return "skipped"
        chosen = max(valid, key=_weight)
        regions = self.interface.regions_of(chosen.result)
        try:
            areas, without = labelled_areas(regions)
            names = self.mapping.ids_of(dict.fromkeys(area.label for area in areas))
        except LabelFormatError as error:
            return f"annotation {chosen.annotation_id}: {error}"
        if not areas:
            why = "; ".join(without) or "nothing was labelled"
            return f"annotation {chosen.annotation_id} is empty: {why}"
        return _Answer(chosen.annotation_id, regions, names)

    def _mask(self, task: _Task, answer: _Answer) -> _Outcome:
        try:
            place = self.folder / task.image if task.place.startswith("/") else task.place
            height, width = image_size(read_bytes(place, self.options), str(place))
            composed = compose(answer.regions, self.mapping.labels, height, width, names=answer.names)
        except ImageError as error:
            return _Outcome(task.stamp, str(error), lasting=False)
        except LabelFormatError as error:
            return _Outcome(task.stamp, f"annotation {answer.annotation_id}: {error}")
        write_mask(self.folder / task.mask, composed.label_map)
        return _Outcome(task.stamp, notes=tuple(composed.notes))

    def _has_files(self, task: _Task) -> bool:
        is_elsewhere = not task.place.startswith("/")
        return (self.folder / task.mask).exists() and (is_elsewhere or (self.folder / task.image).exists())

    def _read_journal(self) -> dict[int, _Outcome]:
        try:
            lines = (self.folder / _JOURNAL).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        found = {}
        for line in lines:
            try:
                row = json.loads(line)
                outcome = _Outcome(row["stamp"], row["reason"], tuple(row["notes"]))
                task_id, project_id = int(row["task"]), int(row["project"])
            except (ValueError, KeyError, TypeError):
                log.info("%s: a torn line in %s; its task is pulled again", self.what, _JOURNAL)
                continue
            if project_id != self.project.project_id:
                raise PoolError(
                    f"{self.folder} holds the masks of project {project_id}; give {self.what} another name"
                )
            found[task_id] = outcome
        return found

    def _line(self, task_id: int, outcome: _Outcome) -> str:
        row: dict[str, Any] = {"project": self.project.project_id, "task": task_id, "stamp": outcome.stamp}
        return json.dumps({**row, "reason": outcome.reason, "notes": list(outcome.notes)}) + "\n"

    def _finish(self, taken: Sequence[_Task]) -> None:
        rows = [{"id": str(t.task_id), "image": t.image, "mask": t.mask} for t in taken]
        manifest = "".join(f"{json.dumps(row)}\n" for row in rows)
        write_whole(self.folder / MIRROR_MANIFEST, manifest.encode())
        kept = {i: outcome for i, outcome in self.outcomes.items() if outcome.lasting}
        write_whole(self.folder / _JOURNAL, "".join(self._line(i, o) for i, o in kept.items()).encode())
        for part in ("images", "masks"):
            names = {Path(row["image"] if part == "images" else row["mask"]).name for row in rows}
            (self.folder / part).mkdir(exist_ok=True)
            forget(self.folder / part, names)


def _named(project: Project) -> str:
    return f'project {project.project_id} "{project.title}"'


def _weight(annotation: Annotation) -> tuple[bool, datetime, int]:
    return annotation.ground_truth, annotation.updated_at, annotation.annotation_id
