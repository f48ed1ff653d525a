"""The people who rate: their keys, how far each is, and putting one in another's place."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from pydantic import SecretStr

from mad_backend.core.panels import counted, seat_holders
from mad_backend.core.ratings import is_rated
from mad_backend.core.records import Answer, AnswerKind, Departure, ProjectRole, Rating
from mad_backend.errors import LabelStudioError, StoreError
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pull_ratings import is_cut, pull_ratings

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class RaterProgress:
    """One rater's images: `answered` of `total`; `seconds` is the median of what one took, `last` the latest answer.

    `address` is where they go on; `left` is None unless they left.
    """

    rater: str
    answered: int
    total: int
    seconds: float | None
    last: datetime | None
    address: str
    left: Departure | None = None


def set_up_raters(
    tokens: Mapping[str, SecretStr], connect: Callable[[SecretStr], LabelStudioClient]
) -> list[str]:
    """Lets Enter submit for everybody whose token we hold (email -> token); says where that did not work.

    A rater's token that is wrong only costs that rater a keystroke, so nothing is raised.
    """
    troubles = []
    for email, token in sorted(tokens.items()):
        try:
            client = connect(token)
            owner = client.current_user().email
            if owner.casefold() == email.casefold():
                client.submit_with_enter()
            else:
                troubles.append(f"MAD_RATER_TOKENS: the token given for {email} is that of {owner}")
        except LabelStudioError as error:
            troubles.append(f"MAD_RATER_TOKENS, {email}: {error}")
    for trouble in troubles:
        log.warning("%s", trouble)
    return troubles


def rater_progress(store: Store, number: int, url: str, people: Iterable[str] = ()) -> list[RaterProgress]:
    """Everybody who rates in the round or left it, by email, as of the last pull.

    `people` are others who may rate; `url` is the server's. Raises StoreError if nothing was pushed.
    """
    projects = store.remote.projects(number, ProjectRole.RATING)
    if not projects:
        raise StoreError(f"round {number} has no rating project; nobody can rate yet")
    left = {d.rater: d for d in store.answers.departures(number)}
    tasks = {p.seat: store.remote.tasks(number, ProjectRole.RATING, p.seat) for p in projects}
    current = {task_id for found in tasks.values() for task_id in found.values()}
    answers = [a for a in store.answers.all(number) if a.is_opinion and a.task_id in current]
    rows = []
    for project in projects:
        address = f"{url}/projects/{project.project_id}/data?labeling=1"
        if project.seat:
            who = set(seat_holders(project.seat, left))
        else:
            newcomers = (d.replaced_by for d in left.values() if d.replaced_by)
            who = {*(a.rater for a in answers), *people, *left, *newcomers}
        for rater in sorted(who):
            own = [a for a in answers if a.rater == rater and a.seat == project.seat]
            rows.append(_row(rater, own, len(tasks[project.seat]), address, left.get(rater)))
    return sorted(rows, key=lambda row: row.rater)


def _row(rater: str, own: list[Answer], total: int, address: str, left: Departure | None) -> RaterProgress:
    times = [a.lead_time_s for a in own if a.lead_time_s is not None]
    return RaterProgress(
        rater=rater,
        answered=len({a.image_id for a in own}),
        total=total,
        seconds=median(times) if times else None,
        last=max((a.created_at for a in own), default=None),
        address=address,
        left=left,
    )


def replace_rater(
    client: LabelStudioClient,
    store: Store,
    number: int,
    leaver: str,
    newcomer: str,
    *,
    discard: bool,
    wanted: int,
    now: datetime,
    report: Report,
) -> int:
    """Puts `newcomer` in the place of `leaver`, whose answers count on unless `discard`; how many tasks it re-opened.

    May be repeated after an interruption. Raises StoreError where the two cannot change places, or S and T are drawn,
    and LabelStudioError.
    """
    if is_cut(store, number):
        raise StoreError(f"S and T of round {number} are drawn; who rates it changes nothing any more")
    pull_ratings(client, store, number, wanted=wanted)
    _check(client, store, number, leaver, newcomer)
    known = {d.rater: d for d in store.answers.departures(number)}.get(leaver)
    departure = Departure(leaver, newcomer, discard, known.at if known else now)
    store.answers.record_departure(number, departure)
    log.info("round %d: %s is replaced by %s", number, leaver, newcomer)
    pull_ratings(client, store, number, wanted=wanted)
    todo = _short_tasks(store, number, leaver, wanted)
    for done, (task_id, overlap) in enumerate(todo.items(), start=1):
        # Label Studio 1.23.2 does not look again whether a task is complete when its overlap changes.
        body = {"overlap": overlap, "is_labeled": False}
        client.send("PATCH", f"/api/tasks/{task_id}/", f"opening task {task_id} again", body)
        report(done, len(todo))
    return len(todo)


def _check(client: LabelStudioClient, store: Store, number: int, leaver: str, newcomer: str) -> None:
    left = {d.rater: d for d in store.answers.departures(number)}
    seats = [p.seat for p in store.remote.projects(number, ProjectRole.RATING) if p.seat]
    holders = {seat_holders(seat, left)[-1] for seat in seats}
    raters = holders or {a.rater for a in store.answers.all(number)}
    again = left.get(leaver)
    if again and again.replaced_by != newcomer:
        raise StoreError(f"{leaver} left round {number} already and was replaced by {again.replaced_by}")
    if not again and leaver not in raters:
        raise StoreError(f"{leaver} does not rate in round {number}; who does: {', '.join(sorted(raters))}")
    if newcomer == leaver or newcomer in left:
        raise StoreError(f"{newcomer} leaves round {number} and cannot come in; name somebody else")
    if not again and newcomer in holders:
        raise StoreError(f"{newcomer} has a seat in round {number} already; name somebody else")
    if newcomer not in client.people().values():
        raise StoreError(
            f"Label Studio at {client.url} does not know {newcomer}; have them sign up there (Organization > Add "
            "Members)"
        )


def _short_tasks(store: Store, number: int, leaver: str, wanted: int) -> dict[int, int]:
    """Task id -> overlap that lets Label Studio show it to somebody new, for tasks that it thinks complete or taken."""
    left = {d.rater: d for d in store.answers.departures(number)}
    tasks = {
        task_id
        for p in store.remote.projects(number, ProjectRole.RATING)
        for task_id in store.remote.tasks(number, ProjectRole.RATING, p.seat).values()
    }
    answers = [a for a in store.answers.all(number) if a.task_id in tasks]
    by_image: dict[str, list[Rating]] = {}
    for rating in counted(answers, left.values(), wanted):
        by_image.setdefault(rating.image_id, []).append(rating)
    by_task: dict[int, list[Answer]] = {}
    for answer in answers:
        by_task.setdefault(answer.task_id, []).append(answer)
    found = {}
    for project in store.remote.projects(number, ProjectRole.RATING):
        places = 1 if project.seat else wanted
        if project.seat and leaver not in seat_holders(project.seat, left):
            continue
        for image_id, task_id in store.remote.tasks(number, ProjectRole.RATING, project.seat).items():
            given = by_image.get(image_id, [])
            if is_rated(given, wanted):
                continue
            here = [a for a in by_task.get(task_id, []) if a.kind is not AnswerKind.SKIPPED]
            people = {a.rater for a in here}
            missing = places - len({r.annotation_id for r in given} & {a.annotation_id for a in here})
            if project.seat and missing and leaver not in people:
                missing += 1  # the leaver may have it open, which keeps it from others for a day
            if missing > 0 and len(people) + missing > places:
                found[task_id] = len(people) + missing
    return found
