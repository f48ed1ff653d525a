"""Brings ratings back: every answer as it stands in Label Studio, and what counts of them, until S and T are drawn."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mad_backend.core.panels import counted, objection
from mad_backend.core.ratings import is_rated
from mad_backend.core.records import Answer, AnswerKind, ProjectRole, Rating, RemoteProject
from mad_backend.errors import LabelFormatError, StoreError
from mad_backend.label_studio.results import rating_of
from mad_backend.store.store import Store
from sync.changes import Changes, find_changes, read_answers
from sync.client import LabelStudioClient
from sync.pull import DELETED_USER, PullProgress, TaskProblem, name_of
from sync.shapes import Annotation

log = logging.getLogger(__name__)


def pull_ratings(client: LabelStudioClient, store: Store, number: int, *, wanted: int = 3) -> PullProgress:
    """Makes the round's ratings what stands in Label Studio now; in one project of all, or in one a seat.

    An image is done with `wanted` ratings by distinct people, or once vetoed; `counted` says whose. Once S and T are
    recorded nothing changes any more, and the server is not asked. Raises LabelStudioError, and StoreError if nothing
    was pushed.
    """
    projects = store.remote.projects(number, ProjectRole.RATING)
    if is_cut(store, number):
        return _frozen(store, number, projects, wanted)
    if not projects:
        raise StoreError(f"round {number} has no rating project; push before pulling")
    found = [_pull_project(client, store, number, project) for project in projects]
    current = {task_id for changes in found for task_id in changes.tasks.values()}
    answers = [a for a in store.answers.all(number) if a.task_id in current]
    ratings = counted(answers, store.answers.departures(number), wanted)
    if not _record(store, number, ratings):
        return _frozen(store, number, projects, wanted)
    images = {i for changes in found for i in changes.tasks} | {g.image_id for c in found for g in c.gone}
    done = _done(ratings, wanted)
    left_out = [problem for changes in found for problem in (*changes.gone, *changes.problems)]
    problems = (*left_out, *_problems(store, number, answers, ratings, done, wanted))
    progress = PullProgress(len(done), len(images), _by_person(ratings), problems)
    log.info("round %d: %d ratings, %d of %d images done", number, len(ratings), len(done), len(images))
    return progress


def is_cut(store: Store, number: int) -> bool:
    """True once S and T were drawn from the round's ratings."""
    return bool(store.choices.failures(number) or store.choices.test_set(number))


def _pull_project(client: LabelStudioClient, store: Store, number: int, project: RemoteProject) -> Changes:
    """Brings the answers of one project up to date."""
    changes = find_changes(client, store, number, project)
    store.answers.replace(number, {gone.task_id: () for gone in changes.gone if gone.task_id is not None})
    if not changes.to_read:
        return changes
    people = client.people()
    before = {a.annotation_id: a.rater for a in store.answers.all(number)}
    for portion in read_answers(client, changes):
        by_task = {
            task.task_id: [_answer(a, task.image_id, project.seat, people, before) for a in task.annotations]
            for task in portion
        }
        store.answers.replace(number, by_task)
        times = {task.image_id: task.updated_at for task in portion}
        store.remote.record_read(number, ProjectRole.RATING, times, project.seat)
    return changes


def _answer(
    annotation: Annotation, image_id: str, seat: str, people: Mapping[int, str], before: Mapping[int, str]
) -> Answer:
    kind, score = _reading(annotation, image_id)
    rater = name_of(annotation, people)
    return Answer(
        image_id=image_id,
        task_id=annotation.task_id,
        annotation_id=annotation.annotation_id,
        # Of users who were deleted since, it is still known who answered.
        rater=before.get(annotation.annotation_id, rater) if rater == DELETED_USER else rater,
        kind=kind,
        created_at=annotation.created_at,
        score=score,
        lead_time_s=annotation.lead_time_s,
        seat=seat,
    )


def _reading(annotation: Annotation, image_id: str) -> tuple[AnswerKind, int | None]:
    if annotation.was_cancelled:
        return AnswerKind.SKIPPED, None
    if not annotation.result:
        return AnswerKind.EMPTY, None
    try:
        score = rating_of(annotation.result)
    except LabelFormatError as error:
        log.warning("image %s, annotation %d left out: %s", image_id, annotation.annotation_id, error)
        return AnswerKind.UNREADABLE, None
    return (AnswerKind.VETO if score is None else AnswerKind.RATING), score


def _record(store: Store, number: int, ratings: Sequence[Rating]) -> bool:
    """False if S and T were drawn meanwhile."""

    def place(rating: Rating) -> tuple[str, str]:
        return rating.image_id, rating.rater

    if sorted(ratings, key=place) == sorted(store.remote.ratings(number), key=place):
        return True
    return store.remote.record_ratings(number, ratings)


def _frozen(store: Store, number: int, projects: Iterable[RemoteProject], wanted: int) -> PullProgress:
    log.info("round %d: S and T are drawn; its ratings stay as they were", number)
    images = {i for p in projects for i in store.remote.tasks(number, ProjectRole.RATING, p.seat)}
    ratings = store.remote.ratings(number)
    return PullProgress(len(_done(ratings, wanted)), len(images), _by_person(ratings), is_frozen=True)


def _done(ratings: Iterable[Rating], wanted: int) -> set[str]:
    given: dict[str, list[Rating]] = {}
    for rating in ratings:
        given.setdefault(rating.image_id, []).append(rating)
    return {image_id for image_id, found in given.items() if is_rated(found, wanted)}


def _by_person(ratings: Iterable[Rating]) -> dict[str, int]:
    return dict(Counter(r.rater for r in ratings))


def _problems(
    store: Store,
    number: int,
    answers: Sequence[Answer],
    ratings: Sequence[Rating],
    done: set[str],
    wanted: int,
) -> list[TaskProblem]:
    """What does not count although somebody may think so, and what people skipped while it waits."""
    left = {d.rater: d for d in store.answers.departures(number)}
    found: list[TaskProblem] = []
    skipped: dict[tuple[str, int], list[str]] = {}
    for answer in answers:
        text = objection(answer, left)
        if text and left.get(answer.rater) and left[answer.rater].discarded:
            continue  # that it does not count is what ops asked for
        what = f"annotation {answer.annotation_id} by {answer.rater}"
        if text:
            found.append(TaskProblem(answer.image_id, answer.task_id, f"{what} does not count: {text}"))
        elif answer.kind is AnswerKind.SKIPPED:
            skipped.setdefault((answer.image_id, answer.task_id), []).append(answer.rater)
        elif not answer.is_opinion:
            wrong = "is empty" if answer.kind is AnswerKind.EMPTY else "is not a rating"
            found.append(TaskProblem(answer.image_id, answer.task_id, f"{what} {wrong}; it does not count"))
        elif answer.rater == DELETED_USER:
            found.append(TaskProblem(answer.image_id, answer.task_id, f"{what} counts, whoever that was"))
    counts = Counter(r.image_id for r in ratings)
    for (image_id, task_id), who in skipped.items():
        if image_id not in done:
            text = (
                f"skipped by {', '.join(sorted(set(who)))}; it has {counts[image_id]} of {wanted} ratings, and who "
                "skipped it is not asked again: delete the skip, or have somebody else rate"
            )
            found.append(TaskProblem(image_id, task_id, text))
    return found
