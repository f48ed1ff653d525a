"""`mad raters` and `mad replace-rater`: what they do and what they print."""

from contextlib import closing
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from mad_backend.errors import StoreError
from mad_backend.settings import Settings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.pull import PullProgress
from sync.pull_ratings import pull_ratings
from sync.raters import RaterProgress, rater_progress, replace_rater


def show_raters(client: LabelStudioClient, settings: Settings, number: int | None, console: Console) -> None:
    """Pulls the ratings of a round (None: the latest) and prints how far each rater is."""
    with closing(Store(settings.database_url)) as store:
        number = _number(store, number)
        with console.status("fetching ratings"):
            progress = pull_ratings(client, store, number, wanted=settings.rating.raters)
        rows = rater_progress(store, number, client.url, settings.rating.people)
    print_raters(rows, progress, console)


def change_rater(
    client: LabelStudioClient,
    settings: Settings,
    number: int | None,
    leaver: str,
    newcomer: str,
    console: Console,
    *,
    discard: bool,
) -> None:
    """Puts `newcomer` in the place of `leaver` in a round (None: the latest), and says what that changed."""
    with closing(Store(settings.database_url)) as store:
        number = _number(store, number)
        with console.status("fetching ratings") as status:
            opened = replace_rater(
                client,
                store,
                number,
                leaver,
                newcomer,
                discard=discard,
                wanted=settings.rating.raters,
                now=datetime.now(UTC),
                report=lambda done, total: status.update(f"opening tasks again: {done} of {total}"),
            )
        rows = rater_progress(store, number, client.url)
    address = next(row.address for row in rows if row.rater == newcomer)
    kept = "do not count any more" if discard else "count on"
    console.print(
        f"round {number}: {newcomer} rates in place of {leaver}, whose answers {kept}; {opened} tasks were opened "
        f"again. {newcomer} goes on at {address}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def print_raters(rows: list[RaterProgress], progress: PullProgress, console: Console) -> None:
    """A row per rater; below, how far all are together, who left, and what people should look at."""
    console.print(_table(rows))
    for line in _remarks(rows, progress):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _number(store: Store, number: int | None) -> int:
    if number is not None:
        return store.rounds.get(number).number
    latest = store.rounds.latest()
    if latest is None:
        raise StoreError("there is no round yet; `mad new-round` starts one")
    return latest.number


def _table(rows: list[RaterProgress]) -> Table:
    table = Table("rater", "answered", "of", "seconds per image", "last answer (UTC)", "goes on at")
    for row in rows:
        table.add_row(
            row.rater,
            str(row.answered),
            str(row.total),
            "" if row.seconds is None else f"{row.seconds:.1f}",
            "" if row.last is None else f"{row.last.astimezone(UTC):%Y-%m-%d %H:%M}",
            "left" if row.left else row.address,
        )
    return table


def _remarks(rows: list[RaterProgress], progress: PullProgress) -> list[str]:
    lines = [f"{progress.done} of {progress.total} images are rated"]
    if progress.is_frozen:
        lines[0] += "; S and T are drawn, ratings change nothing any more"
    for departure in {row.left for row in rows if row.left}:
        kept = "; what they had answered does not count" if departure.discarded else ""
        lines.append(
            f"{departure.rater} left on {departure.at.astimezone(UTC):%Y-%m-%d}, replaced by "
            f"{departure.replaced_by}{kept}"
        )
    return lines + [
        f"{p.image_id}{f', task {p.task_id}' if p.task_id else ''}: {p.text}" for p in progress.problems
    ]
