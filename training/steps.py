"""What is done in each state of a round; `PIPELINE` is Algorithm 1's loop on one screen."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from mad_backend.competition import choose_selection, cut_round, little_choice, main_classes
from mad_backend.core.labels import LabelMap, RgbImage
from mad_backend.core.rounds import Round, RoundState
from mad_backend.errors import MadError, PoolError
from mad_backend.pool.predictions import PredictionPack
from sync.pull import PullProgress
from sync.push import PushItem
from training.costs import stop_line
from training.decisions import decision_lines, write_decision
from training.evaluate import competing_models, evaluate_all, failure_sets, image_sets, target_versions
from training.gate import judge
from training.growing import images_with_people, waves
from training.leaks import known_contents, quarantined, refused_for_test, write_leaks
from training.people import People
from training.project import Project
from training.report import build_report
from training.report_files import write_report
from training.scanning import describe, scan_pool
from training.selecting import selection_windows, stored_pairs
from training.starting import prepare_starts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What a step works with; `report` takes (what is done, done, total). Heavy steps have no `people`."""

    project: Project
    people: People | None
    report: Callable[[str, int, int], None]

    @property
    def crowd(self) -> People:
        if self.people is None:
            raise MadError("this process has no connection to raters and annotators; run `mad schedule`")
        return self.people


def create(_context: Context, _found: Round) -> bool:
    """Nothing: what can be wrong was checked before the round was made."""
    return True


def predict(context: Context, found: Round) -> bool:
    """Label maps of every model on the pool, and joint histograms (Algorithm 1, lines 2-9)."""
    project, report = context.project, context.report
    result = scan_pool(
        project,
        project.target_of(found),
        lambda status: report(f"models predict the pool, {describe(status)}", status.done, status.total),
    )
    project.store.choices.record_unreadable(result.unreadable)
    prepare_starts(project, report)
    return True


def select(context: Context, found: Round) -> bool:
    """M (Algorithm 1, lines 10-15)."""
    project = context.project
    windows = selection_windows(project)
    for class_id, window in windows.items():
        if window.is_widened:
            name = project.labels.names[class_id]
            log.warning("class %s is in %d training images only; its window is widened", name, window.images)
    pairs = stored_pairs(project, project.target_of(found))
    twins = quarantined(project, found.number)
    write_leaks(project, found.number, "M", twins)
    selection = choose_selection(
        project.store,
        found.number,
        pairs,
        windows,
        project.settings.selection,
        {twin.image_id for twin in twins},
    )
    if not selection.candidates:
        raise PoolError(
            "M is empty: no image of the pool holds a class within its area window; enlarge the pool"
        )
    hint = little_choice(len(selection.candidates), project.settings.rating, project.settings.test_set)
    if hint:
        log.warning("round %d: %s", found.number, hint)
    return True


def rate(context: Context, found: Round) -> bool:
    """Sends M, fetches ratings; once all are in, T and S (Algorithm 1, lines 16-17)."""
    project = context.project
    candidates = project.store.choices.selection(found.number)
    with _items(project, found, (c.image_id for c in candidates)) as items:
        progress = context.crowd.rate(found.number, items, context.report)
    note = "waits for ratings" + _by_person(progress.by_person) + _first_problem(progress)
    project.store.rounds.report(found.number, note, progress.done, progress.total)
    if progress.done < progress.total:
        return False
    keys = [project.target_key(project.target_of(found)), *project.competitor_keys().values()]
    main = main_classes(candidates, keys, project.predictions, project.labels)
    contents = known_contents(project, [c.image_id for c in candidates])
    refused = refused_for_test(project, found.number, contents)
    write_leaks(project, found.number, "T", refused)
    summary = cut_round(
        project.store,
        found.number,
        found.seed,
        main,
        project.settings.rating,
        project.settings.test_set,
        contents,
        refused,
    )
    write_leaks(project, found.number, "S", summary.alike)
    return True


def label(context: Context, found: Round) -> bool:
    """Sends S and T, fetches their label maps; a T that grows is sent in waves, until the ranking is stable on it."""
    project = context.project
    version = project.target_of(found).version
    for wave in waves(project, found.number):
        with _items(project, found, wave) as items:
            progress = context.crowd.label(found.number, items, version, context.report)
        note = "waits for label maps" + _by_person(progress.by_person) + _first_problem(progress)
        project.store.rounds.report(found.number, note, progress.done, progress.total)
        if progress.done < progress.total:
            return False
    return True


def check(context: Context, found: Round) -> bool:
    """Others than their authors look at the label maps (Sec. 4.1); what is in dispute waits for authors or for ops."""
    project = context.project
    if not project.settings.check.enabled:
        return True
    with _items(project, found, images_with_people(project, found.number)) as items:
        progress = context.crowd.check(found.number, items, context.report)
    note = "waits for checks" + _by_person(progress.by_person)
    if progress.rejected:
        maps = f"{len(progress.rejected)} map{'s' if len(progress.rejected) > 1 else ''}"
        note += f"; {maps} rejected, `mad disagreements` lists"
    note += _first_problem(progress)
    project.store.rounds.report(found.number, note, progress.done, progress.total)
    return progress.done >= progress.total


def train(context: Context, found: Round) -> bool:
    """f(i) from f(i-1) (Algorithm 1, lines 18-19)."""
    # Late: the scheduler, which leaves this step to a process of its own, needs neither torch nor mmengine.
    from training.finetune import finetune_round

    finetune_round(context.project, found, context.report)
    return True


def evaluate(context: Context, found: Round) -> bool:
    """Every model on T(0) and every T so far (Sec. 4.2), and every version on every S: the failure suite."""
    project = context.project

    def report(done: int, total: int) -> None:
        context.report("evaluating", done, total)

    versions = target_versions(project)
    evaluate_all(project, [*competing_models(project), *versions], image_sets(project, found.number), report)
    evaluate_all(project, versions, failure_sets(project, found.number), report)
    return True


def promote(context: Context, found: Round) -> bool:
    """The report, the gate's decision, and whether the stop rule lets another round follow."""
    project = context.project
    # Label maps may have been corrected since; where none was, there is nothing to do.
    evaluate(context, found)
    decision = judge(project, found)
    write_decision(project, found.number, decision)
    measured = build_report(project)
    stop = stop_line(project, measured)
    told = decision_lines(project, found.number, decision.reason, stop)
    write_report(project, measured, told)
    if decision.promote:
        project.store.versions.promote(decision.after, _now(), decision.reason)
    project.store.rounds.conclude(found.number, decision.reason, stop)
    log.info("round %d: %s", found.number, decision.reason.replace("\n", "; "))
    if stop:
        log.info("round %d: `mad schedule` starts no further round by itself: %s", found.number, stop)
    return True


def load_item(project: Project, pack: PredictionPack, image_id: str) -> tuple[RgbImage, LabelMap]:
    """A pool image and the label map that `pack` holds of it, both at the image's own size."""
    rgb = project.reader.rgb(project.pool[image_id])
    return rgb, project.grid.restore(pack.read(image_id), rgb.shape[0], rgb.shape[1])


Step = Callable[[Context, Round], bool]
"""Does a state's work as far as it is missing; True when it is done, False while people are waited for."""

PIPELINE: dict[RoundState, Step] = {
    RoundState.CREATED: create,
    RoundState.PREDICTING: predict,
    RoundState.SELECTING: select,
    RoundState.RATING: rate,
    RoundState.LABELLING: label,
    RoundState.CHECKING: check,
    RoundState.TRAINING: train,
    RoundState.EVALUATING: evaluate,
    RoundState.PROMOTING: promote,
}


@contextmanager
def _items(project: Project, found: Round, image_ids: Iterable[str]) -> Iterator[list[PushItem]]:
    # One open pack for all items: opening one reads the headers of the whole pool.
    with project.predictions.open(project.target_key(project.target_of(found))) as pack:
        yield [
            PushItem(i, partial(load_item, project, pack, i), str(project.pool[i].path)) for i in image_ids
        ]


def _first_problem(progress: PullProgress) -> str:
    if not progress.problems:
        return ""
    first, more = progress.problems[0], len(progress.problems) - 1
    return f"; image {first.image_id}: {first.text}" + (f" (and {more} more)" if more else "")


def _by_person(given: dict[str, int]) -> str:
    return ": " + ", ".join(f"{who} {n}" for who, n in sorted(given.items())) if given else ""


def _now() -> datetime:
    return datetime.now(UTC)
