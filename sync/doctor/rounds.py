"""Checks of the projects that rounds have at the server: labels as made, overlap, and what annotators start from."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from mad_backend.core.records import ProjectRole, RemoteProject
from mad_backend.core.rounds import Round
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.label_config import signature
from sync.client import Json
from sync.doctor.findings import Finding, Verdict, not_checked, ok, warning, wrong
from sync.doctor.situation import Situation
from sync.ml_backends import stored_predictions
from sync.segmentation_project import START

_FIELDS: Final = (
    "id,title,label_config,model_version,maximum_annotations,overlap_cohort_percentage,"
    "show_collab_predictions,task_number"
)
_NOTHING: Final = "no round has a project yet; checked again once one has"
_PRELABELING: Final = 'Settings > Annotation > Prelabeling: "Use predictions to prelabel tasks"'


@dataclass(frozen=True)
class _Recorded:
    """A project on record, and what the server has of it now; None: it was deleted there."""

    of: Round
    project: RemoteProject
    there: Json | None

    @property
    def name(self) -> str:
        seat = f" of {self.project.seat}" if self.project.seat else ""
        return f"round {self.of.number}, {self.project.role} project {self.project.project_id}{seat}"


def frozen_labels(at: Situation) -> Iterator[Finding]:
    """Every recorded project is there, and its label configuration means what it meant when it was made."""
    recorded = _recorded(at)
    if not recorded:
        yield not_checked(_NOTHING)
        return
    right = 0
    for one in recorded:
        # What is wrong with the projects of a round that is over harms nobody any more.
        tell = partial(Finding, Verdict.WARNING if one.of.state.is_over else Verdict.WRONG)
        if one.there is None:
            if not one.of.state.is_over:
                yield tell(
                    f"{one.name} was deleted in Label Studio",
                    f"the round fails at its next tick, and `mad retry {one.of.number}` sends it again; answers that "
                    "nobody had pulled are lost",
                )
        elif not _is_as_made(one.project, one.there):
            yield tell(
                f'{one.name} "{one.there["title"]}": its labelling interface was changed, so answers could be misread',
                "undo the change under Settings > Labeling Interface, or delete the project and push again",
            )
        else:
            right += 1
    if right:
        yield ok(f"{right} of {len(recorded)} recorded projects are there with their labels as made")


def overlap(at: Situation) -> Iterator[Finding]:
    """A task is given to as many people as settings say, in rounds under way and in new projects."""
    raters = at.settings.rating.raters
    given = int(at.probe.read(at.probe.task("/none.jpg")).get("overlap") or 0)
    if given != raters:
        yield wrong(
            f"a new project with maximum_annotations {raters} gives its tasks to {given} people each",
            "set the organisation's default overlap (Enterprise: Organization > Settings) so that projects choose",
        )
    right = given == raters
    for one in _open(at):
        wanted = _people_per_task(one.project, raters)
        if one.there is None:
            continue
        number, share = one.there["maximum_annotations"], one.there.get("overlap_cohort_percentage", 100)
        path = f"/api/projects/{one.project.project_id}/"
        if number != wanted:
            right = False
            yield wrong(
                f"{one.name}: tasks go to {number} people each (maximum_annotations), wanted {wanted}"
                + (" (rating.raters)" if one.project.role is ProjectRole.RATING else ""),
                f'PATCH {path} {{"maximum_annotations": {wanted}}}'
                + (
                    f", or set rating.raters: {number}"
                    if one.project.role is ProjectRole.RATING and not one.project.seat
                    else ""
                ),
            )
        if share != 100 and wanted > 1:
            right = False
            yield wrong(
                f"{one.name}: only {share} % of its tasks go to more than one person",
                f'PATCH {path} {{"overlap_cohort_percentage": 100}}',
            )
    if right:
        yield ok(f"{raters} people rate each image")


def starting_points(at: Situation) -> Iterator[Finding]:
    """Annotators get the prediction to correct: the project's model_version is that of the predictions."""
    roles = {ProjectRole.SEGMENTATION, ProjectRole.CHECK}
    if at.settings.segmentation.start_from == "none":
        roles.remove(ProjectRole.SEGMENTATION)
    found = [one for one in _open(at) if one.project.role in roles and one.there is not None]
    if not found:
        yield not_checked("no round under way has pre-annotated tasks; checked again once one has")
        return
    for one in found:
        assert one.there is not None
        yield _starting_point(at, one, one.there)


def _starting_point(at: Situation, one: _Recorded, there: Json) -> Finding:
    counts = stored_predictions(at.client, one.project.project_id)
    if not counts:
        return ok(f"{one.name} has no predictions yet")
    version = there["model_version"] or ""
    meant = _meant(one, counts)
    if not there["show_collab_predictions"]:
        return wrong(f"{one.name}: annotators get an empty canvas", f'{_PRELABELING}, and choose "{meant}"')
    if version not in counts:
        return wrong(
            f'{one.name}: annotators get an empty canvas, since its model_version is "{version}" and its predictions '
            f"are of {', '.join(sorted(counts))}",
            f'{_PRELABELING}: choose "{meant}"',
        )
    if version != meant:
        return warning(
            f'{one.name}: annotators start from "{version}", not from "{meant}"',
            f'{_PRELABELING}: choose "{meant}"',
        )
    if counts[version] < there["task_number"]:
        return warning(
            f'{one.name}: {counts[version]} of {there["task_number"]} tasks have a prediction of "{version}", the '
            "others open empty",
            "nothing, if their maps were empty; else delete those tasks and push again",
        )
    return ok(f'{one.name}: annotators start from "{version}"')


def _meant(one: _Recorded, counts: dict[str, int]) -> str:
    """The version to start from, of those that are there: by its name, else the one of most tasks."""
    known = [name for name in (one.of.target, START) if name in counts]
    return known[0] if known else max(counts, key=lambda name: (counts[name], name))


def _people_per_task(project: RemoteProject, raters: int) -> int:
    match project.role:
        case ProjectRole.RATING:
            return 1 if project.seat else raters
        case ProjectRole.SEGMENTATION:
            return 1
        case ProjectRole.CHECK:
            # The author's place is taken by a skip.
            return 2


def _recorded(at: Situation) -> list[_Recorded]:
    """All projects of all rounds; one question to the server for all of them."""
    listed = at.client.pages("/api/projects/", "listing the projects", {"include": _FIELDS}, "results")
    there = {p["id"]: p for p in listed}
    return [
        _Recorded(of, project, there.get(project.project_id))
        for of in at.store.rounds.all()
        for role in ProjectRole
        for project in at.store.remote.projects(of.number, role)
    ]


def _open(at: Situation) -> list[_Recorded]:
    return [one for one in _recorded(at) if not one.of.state.is_over]


def _is_as_made(project: RemoteProject, there: Json) -> bool:
    try:
        return signature(there["label_config"]) == project.signature
    except LabelFormatError:
        return False
