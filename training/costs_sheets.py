"""The cost ledger as tables and lines of text, for the terminal and for a page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from mad_backend.core.costs import Cell, Yield
from mad_backend.core.work import IDLE_FACTOR, NOTHING, Spent, Work
from mad_backend.settings import CostSettings
from training.costs import Ledger
from training.report_text import points_text

Key = TypeVar("Key")

FOUND = ("images", "answers", "good", "vetoed", "failures", "failures per hour")
"""Columns of `Yield`."""


@dataclass(frozen=True)
class Sheet:
    """A table; its first `text_columns` columns are text."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1


def hours_sheet(ledger: Ledger, costs: CostSettings) -> Sheet:
    """Hours of each round by kind of work, and what they cost if that is known; below, of all rounds."""
    headers = ["round", *(f"{work}, h" for work in Work), "together, h"]
    headers += [f"cost, {costs.currency}".removesuffix(", ")] if costs.per_hour is not None else []
    rows = [(str(r.number), *_time(r.spent.values(), r.hours, costs)) for r in ledger.rounds]
    if len(rows) > 1:
        spent = [sum((r.spent[work] for r in ledger.rounds), NOTHING) for work in Work]
        hours = [r.hours for r in ledger.rounds]
        together = None if None in hours else sum(h for h in hours if h is not None)
        rows.append(("all", *_time(spent, together, costs)))
    return Sheet("Hours", tuple(headers), tuple(rows))


def gains_sheet(ledger: Ledger) -> Sheet:
    """What each round found and gained."""
    rows = [
        (
            *map(str, (r.number, r.selected, r.failures, r.confirmed, r.test_set)),
            points_text(r.gain.estimate) if r.gain else "-",
            _number(r.points_per_hour, 2),
        )
        for r in ledger.rounds
    ]
    headers = ("round", "M", "S", "fair or worse", "T", "gain on its T [95 % interval]", "points per hour")
    return Sheet("Gains", headers, tuple(rows))


def people_sheet(ledger: Ledger) -> Sheet:
    """Everybody's work by round; times without idle ones."""
    rows = [
        (
            str(r.number),
            p.work.value,
            p.person,
            str(p.spent.pieces),
            str(p.spent.unknown or ""),
            _number(p.median_s),
            _number(p.spent.seconds if p.median_s is not None else None, 0),
            str(p.vetoes or ""),
        )
        for r in ledger.rounds
        for p in r.people
    ]
    headers = ("round", "work", "who", "answers", "of unknown time", "median s", "total s", "vetoes")
    return Sheet("People", headers, tuple(rows), 3)


def models_sheet(ledger: Ledger) -> Sheet:
    """What the images that each competing model found were worth, over all rounds."""
    found = _totals(r.models for r in ledger.rounds)
    rows = tuple((name, *_yield_row(worth)) for name, worth in sorted(found.items()))
    return Sheet("Competing models", ("competing model", *FOUND), rows)


def cells_sheet(ledger: Ledger, class_names: Sequence[str]) -> Sheet:
    """The same by competing model, class and role."""
    found: dict[Cell, Yield] = _totals(r.cells for r in ledger.rounds)
    rows = tuple(
        (cell.competitor, class_names[cell.class_id], cell.role.value, *_yield_row(worth))
        for cell, worth in sorted(found.items())
    )
    return Sheet(
        "Competing model, class and role", ("competing model", "class", "label map of", *FOUND), rows, 3
    )


def notes(ledger: Ledger, costs: CostSettings) -> Iterator[str]:
    """What a reader of the tables has to know."""
    cap = (
        f"{costs.idle_s:g} s (costs.idle_s)"
        if costs.idle_s is not None
        else f"{IDLE_FACTOR} times the person's median"
    )
    yield f"idle time is cut off: an answer counts for at most {cap}"
    unknown = sum(r.total.unknown for r in ledger.rounds)
    if unknown:
        yield (
            f"{unknown} answers came without a time; hours take them to be as long as the others of their kind on "
            "average"
        )
    yield (
        f"good: share of the rated images whose MOS is {costs.good:g} or more (costs.good), on which the target was "
        "right after all; failures: images of S"
    )
    yield "an image that several models or cells chose counts for each of them; images drawn for T are no failures here"


def stop_lines(reasons: Sequence[str]) -> list[str]:
    """What the stop rule says, and what that means."""
    if not reasons:
        return ["stop rule: nothing speaks against a further round"]
    return [
        f"stop rule: {'; '.join(reasons)}",
        "`mad schedule` starts no further round; `mad new-round` does",
    ]


def forecast_lines(ledger: Ledger, costs: CostSettings) -> list[str]:
    """The next round in words, and how little is known of it."""
    expected = ledger.forecast
    if expected is None:
        return ["no forecast: no round is finished yet"]
    by = ("medians of rounds " if len(expected.rounds) > 1 else "round ") + ", ".join(
        map(str, expected.rounds)
    )
    what = {Work.RATING: "ratings", Work.LABELLING: "label maps", Work.CHECKING: "checks"}
    work = [f"{s.pieces} {what[k]} in {_hours(s.hours)}" for k, s in expected.spent.items() if s.pieces]
    together = f"{_hours(expected.hours)}{_price(expected.hours, costs)}"
    lines = [
        f"next round, if it is like the last ({by}): {', '.join(work)}; together {together}",
        f"failures, images of S rated fair or worse: about {expected.failures:g}",
    ]
    gains = expected.gains
    if expected.points is None:
        return [*lines, "gain: none was measured yet"]
    if len(gains) == 1:
        past = f"one round only, {points_text(gains[0].estimate)} itself: how much rounds differ is not known"
    else:
        points = [gain.points for gain in gains]
        past = f"the {len(gains)} rounds gained {min(points):+.2f} to {max(points):+.2f}, the next may be outside"
    return [*lines, f"gain on its own T: about {expected.points:+.2f} points of mIoU; {past}"]


def _totals(rounds: Iterable[Mapping[Key, Yield]]) -> dict[Key, Yield]:
    found: dict[Key, Yield] = {}
    for key, worth in chain.from_iterable(one.items() for one in rounds):
        found[key] = found.get(key, Yield()) + worth
    return found


def _time(spent: Iterable[Spent], together: float | None, costs: CostSettings) -> Iterator[str]:
    """Hours by kind, in all, and what they cost if that is known."""
    yield from (_number(one.hours, 2) for one in spent)
    yield _number(together, 2)
    if costs.per_hour is not None:
        yield _number(None if together is None else together * costs.per_hour, 2)


def _yield_row(found: Yield) -> tuple[str, ...]:
    share = found.false_positive_share
    return (
        str(found.images),
        str(found.spent.pieces),
        "-" if share is None else f"{100 * share:.0f} %",
        str(found.vetoed),
        str(found.failures),
        _number(found.failures_per_hour),
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _hours(value: float | None) -> str:
    return "unknown time" if value is None else f"{value:.2f} h"


def _price(hours: float | None, costs: CostSettings) -> str:
    if hours is None or costs.per_hour is None:
        return ""
    return f" ({hours * costs.per_hour:.2f} {costs.currency}".rstrip() + ")"
