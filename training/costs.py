"""What every round cost and brought, read from the store, and whether the next one is worth it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mad_backend.core.costs import Gain, RoundCost, round_cost
from mad_backend.core.forecast import Forecast, forecast, stop_reasons
from mad_backend.core.records import AnswerKind
from mad_backend.core.rounds import RoundState
from mad_backend.core.work import Piece, Work
from mad_backend.store.store import Store
from training.project import Project
from training.report import Report, build_report


@dataclass(frozen=True)
class Ledger:
    """Every round with an M, oldest first; `forecast` is None before one ended, `stop` says why no next is worth it."""

    rounds: tuple[RoundCost, ...]
    forecast: Forecast | None
    stop: tuple[str, ...]


def build_ledger(project: Project, report: Report | None = None) -> Ledger:
    """From answers, label maps and checks as last fetched, and gains as last measured (`report`; None: read anew)."""
    rounds = _costs(project, report or build_report(project))
    finished = {r.number for r in project.store.rounds.all() if r.state is RoundState.FINISHED}
    expected = forecast(
        [r for r in rounds if r.number in finished],
        raters=project.settings.rating.raters,
        n4=project.settings.rating.n4,
        is_checked=project.settings.check.enabled,
    )
    return Ledger(tuple(rounds), expected, tuple(_reasons(project, rounds)))


def stop_line(project: Project, report: Report | None = None) -> str | None:
    """Why the stop rule would start no further round, in a line; None where it is content."""
    if report is None and project.settings.stop.points_per_hour is not None:
        report = build_report(project)
    return "; ".join(_reasons(project, _costs(project, report))) or None


def work_of(store: Store, number: int) -> Iterator[Piece]:
    """Everything people did in a round, idle times included.

    Ratings that do not count, skips and answers of people who left cost time too. Of a label map and of a check of it
    the annotation that counts is known, with the time of all its changes; what others drew or checked beside it is not.
    """
    answers = store.answers.all(number)
    for answer in answers:
        is_veto = answer.kind is AnswerKind.VETO
        yield Piece(Work.RATING, answer.rater, answer.image_id, answer.lead_time_s, is_veto)
    told = {a.annotation_id for a in answers}
    for rating in store.remote.ratings(number):
        if rating.annotation_id not in told:  # of oracles, who answer straight into the store
            yield Piece(Work.RATING, rating.rater, rating.image_id, rating.lead_time_s, rating.is_veto)
    for mask in store.remote.masks(number).values():
        yield Piece(Work.LABELLING, mask.annotator, mask.image_id, mask.lead_time_s)
    for check in store.checks.all(number):
        if check.checker:
            yield Piece(Work.CHECKING, check.checker, check.image_id, check.lead_time_s)


def _costs(project: Project, report: Report | None) -> list[RoundCost]:
    store, settings = project.store, project.settings
    versions = {v.round_number: v.version for v in store.versions.all()}
    found = []
    for number in (r.number for r in store.rounds.all()):
        candidates = store.choices.selection(number)
        if candidates:
            cost = round_cost(
                number,
                candidates,
                work_of(store, number),
                store.remote.ratings(number),
                store.choices.failures(number),
                store.choices.test_set(number),
                _gain(report, versions.get(number), f"T({number})") if report else None,
                n4=settings.rating.n4,
                good=settings.costs.good,
                idle_s=settings.costs.idle_s,
            )
            found.append(cost)
    return found


def _gain(report: Report, version: str | None, image_set: str) -> Gain | None:
    """What a version gained on the T of its own round, as far as that is measured."""
    for change in report.changes:
        if (change.model, change.image_set) == (version, image_set) and not math.isnan(change.estimate.value):
            return Gain(image_set, change.estimate)
    return None


def _reasons(project: Project, rounds: list[RoundCost]) -> list[str]:
    rule = project.settings.stop
    return stop_reasons(
        rounds,
        n4=project.settings.rating.n4,
        mos=rule.mos,
        points_per_hour=rule.points_per_hour,
        last=rule.rounds,
    )
