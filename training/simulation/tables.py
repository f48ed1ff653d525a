"""The results of a simulation as tables: what is shown on a terminal, and what goes into the page."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from mad_backend.core.statistics import Estimate
from training.evaluate import T0
from training.simulation.duels import SimulatedDuel
from training.simulation.records import OPEN
from training.simulation.results import Results, Spread


@dataclass(frozen=True)
class TextTable:
    """A table as text, the first column heading each row."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rich(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left")
        for n, header in enumerate(self.headers):
            table.add_column(header, justify="right" if n else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For documents."""
        lines = [self.headers, ["---"] + ["---:"] * (len(self.headers) - 1), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tables_of(results: Results, duels: Sequence[SimulatedDuel]) -> list[TextTable]:
    """Gains, leads, Table 1, Table 2, what was found, labels to the goal."""
    tables = [_gains(results)]
    if results.leads:
        tables.append(_leads(results))
    tables.append(_over_images(results))
    tables.append(_table_1(results))
    if duels:
        tables.append(_table_2(duels))
    return [*tables, _findings(results), _goal(results)]


def _gains(results: Results) -> TextTable:
    names = [OPEN, T0, *(f"T({n + 1})" for n in range(results.rounds))]
    found = {(p.strategy, p.number, p.image_set): p for p in results.points}
    rows = []
    for number, strategy in _versions(results, results.strategies):
        own = [found[strategy, number, name] for name in names]
        passed = f"{results.promoted[strategy][number - 1]} of {results.seeds}"
        gained = (points(p.gain) for p in own)
        rows.append(
            (_row(strategy, number, results), f"{own[0].labels:.0f}", f"{own[0].hours:.1f}", *gained, passed)
        )
    version = "f(1)" if results.rounds == 1 else "f(i)"
    title = f"{version} - f(0), points of dataset mIoU, mean of {_seeds(results)} [95 % interval]"
    return TextTable(title, ("strategy", "labels", "hours", *names, "past the gate"), tuple(rows))


def _leads(results: Results) -> TextTable:
    names = list(dict.fromkeys(lead.image_set for lead in results.leads))
    found = {(lead.over, lead.number, lead.image_set): lead.difference for lead in results.leads}
    rows = [
        (
            _row(f"{results.strategies[0]} - {over}", number, results),
            *(points(found[over, number, n]) for n in names),
        )
        for number, over in _versions(results, results.strategies[1:])
    ]
    return TextTable("Lead, points of dataset mIoU, paired by seed", ("", *names), tuple(rows))


def _over_images(results: Results) -> TextTable:
    """Gains and leads once more, with intervals over images; only image sets that all strategies share."""
    names = (OPEN, T0, "T(1)")
    gains = {(p.strategy, p.number, p.image_set): p.over_images for p in results.points}
    leads = {(lead.over, lead.number, lead.image_set): lead.over_images for lead in results.leads}
    rows = [
        (_row(s, number, results), *(estimate(gains[s, number, name]) for name in names))
        for number, s in _versions(results, results.strategies)
    ]
    rows += [
        (
            _row(f"{results.strategies[0]} - {over}", number, results),
            *(estimate(leads[over, number, n]) for n in names),
        )
        for number, over in _versions(results, results.strategies[1:])
    ]
    title = f"Gains and leads on the images of {_seeds(results)} together [95 % interval over images]"
    return TextTable(title, ("", *names), tuple(rows))


def _versions(results: Results, strategies: Sequence[str]) -> list[tuple[int, str]]:
    """Round by round, so that what had the same number of label maps stands together."""
    return [(number, strategy) for number in range(1, results.rounds + 1) for strategy in strategies]


def _row(name: str, number: int, results: Results) -> str:
    return name if results.rounds == 1 else f"{name}, f({number})"


def _table_1(results: Results) -> TextTable:
    names = list(results.table_1[0].mious)
    rows = [(row.model, *(_value(row.mious[n]) for n in names)) for row in results.table_1]
    lead = [points(results.lead_over_best[n]) if n in results.lead_over_best else "" for n in names]
    rows.append(("f(i) - best competing on T(i), points", *lead))
    return TextTable(
        f"Table 1, {results.strategies[0]}: dataset mIoU, mean of {_seeds(results)} (standard deviation)",
        ("model", *names),
        tuple(rows),
    )


def _table_2(duels: Sequence[SimulatedDuel]) -> TextTable:
    rows = [
        (
            f"{duel.first} - {duel.second}",
            _value(duel.first_miou),
            _value(duel.second_miou),
            points(duel.difference),
            estimate(duel.over_images),
            f"{duel.wins} : {duel.losses}",
        )
        for duel in duels
    ]
    title = f"Table 2: duels on the {duels[0].budget} images they disagree on most, mean of the seeds"
    headers = (
        "duel",
        "dataset mIoU of the first",
        "of the second",
        "difference, points",
        "over images",
        "images won : lost",
    )
    return TextTable(title, headers, tuple(rows))


def _findings(results: Results) -> TextTable:
    rows = [
        (
            finding.strategy,
            f"{finding.images:.0f}",
            _value(finding.image_miou),
            f"{100 * finding.failed.mean:.0f} %",
            f"{100 * finding.shared.mean:.0f} %",
        )
        for finding in results.findings
    ]
    headers = (
        "strategy",
        "images of S",
        "image mIoU when found",
        "below 0.5",
        f"also chosen by {results.strategies[0]}",
    )
    return TextTable("What was sent to be labelled", headers, tuple(rows))


def _goal(results: Results) -> TextTable:
    rows = [
        (strategy, "not reached" if labels is None else f"{labels:.0f}")
        for strategy, labels in results.labels_to_goal.items()
    ]
    return TextTable(f"Label maps to mIoU {results.goal:.4f} on W", ("strategy", "labels"), tuple(rows))


def confusion_lines(results: Results) -> list[str]:
    """A line a strategy: the confusions that make most of the wrong pixels in what it sent to be labelled."""
    return [
        f"{finding.strategy}: wrong pixels of S are "
        + ", ".join(f"{p.truth} as {p.prediction} {100 * p.share:.1f} %" for p in finding.pairs)
        for finding in results.findings
    ]


def points(spread: Spread) -> str:
    """A difference in points of mIoU with its interval."""
    interval = "" if math.isnan(spread.low) else f" [{100 * spread.low:+.1f}, {100 * spread.high:+.1f}]"
    return f"{100 * spread.mean:+.2f}{interval}"


def estimate(found: Estimate) -> str:
    """The same of an estimate."""
    if math.isnan(found.value):
        return "not measured"
    return f"{100 * found.value:+.2f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _seeds(results: Results) -> str:
    return f"{results.seeds} seed" + ("s" if results.seeds > 1 else "")


def _value(spread: Spread) -> str:
    return f"{spread.mean:.4f}" + (f" ({_deviation(spread.values):.4f})" if len(spread.values) > 1 else "")


def _deviation(values: Iterable[float]) -> float:
    found = list(values)
    mean = sum(found) / len(found)
    return math.sqrt(sum((v - mean) ** 2 for v in found) / (len(found) - 1))
