"""`mad disagreements` and `mad settle`: what they print."""

import json
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from mad_backend.errors import StoreError
from mad_backend.settings import Settings
from mad_backend.store.store import Store
from sync.disagreements import Disagreement, disagreements, settle


def show_disagreements(
    settings: Settings, url: str, number: int | None, console: Console, *, as_json: bool
) -> None:
    """Prints the disagreements of a round (None: the latest); `url` is where people find Label Studio."""
    with closing(Store(settings.database_url)) as store:
        number = _number(store, number)
        found = disagreements(store, number, url)
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in found]) + "\n")
    elif found:
        console.print(_table(number, found))
        for one in found:
            # Outside the table, which would break addresses.
            console.print(_places(one), soft_wrap=True, markup=False, highlight=False)
    else:
        console.print(f"round {number}: nobody disagrees")


def settle_one(settings: Settings, number: int | None, image_id: str, take: str, console: Console) -> None:
    """Settles what one label map of a round (None: the latest) is to be, and says so."""
    with closing(Store(settings.database_url)) as store:
        number = _number(store, number)
        settle(store, number, image_id, take, datetime.now(UTC))
    what = "is left out" if take == "drop" else f"counts as its {take} painted it"
    console.print(f"round {number}: image {image_id} {what}", soft_wrap=True, markup=False, highlight=False)


def _number(store: Store, number: int | None) -> int:
    found = store.rounds.latest() if number is None else store.rounds.get(number)
    if found is None:
        raise StoreError("there is no round yet; `mad new-round` starts one")
    return found.number


def _table(number: int, found: list[Disagreement]) -> Table:
    table = Table(title=f"round {number}: label maps that were not accepted as drawn", title_justify="left")
    for column in ("image", "verdict", "what was wrong", "changed", "author", "checker", "what counts"):
        table.add_column(column, justify="right" if column == "changed" else "left")
    for one in found:
        table.add_row(
            one.image_id,
            one.verdict,
            ", ".join(one.errors) or "-",
            "-" if one.changed_share is None else f"{100 * one.changed_share:.2f} %",
            one.author or "-",
            one.checker or "-",
            "; ".join((one.outcome, *one.notes)),
        )
    return table


def _places(one: Disagreement) -> str:
    where = [f"drawn at {one.drawing}"] if one.drawing else []
    where += [f"checked at {one.checking}"] if one.checking else []
    return f"{one.image_id}: {', '.join(where) or 'its tasks are gone'}"
