"""The cost ledger as JSON for other programs, and as a page for people."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from mad_backend.core.costs import RoundCost, Yield
from mad_backend.core.forecast import Forecast
from mad_backend.core.work import Spent
from mad_backend.settings import CostSettings
from training.costs import Ledger
from training.costs_sheets import (
    Sheet,
    cells_sheet,
    forecast_lines,
    gains_sheet,
    hours_sheet,
    models_sheet,
    notes,
    people_sheet,
    stop_lines,
)
from training.pages import bullets, page, section, table
from training.report_files import as_json


def costs_json(ledger: Ledger, class_names: Sequence[str]) -> str:
    """One object: rounds, forecast (null before a round ended), stop (reasons); what is not known is null."""
    return as_json(
        {
            "rounds": [_round(r, class_names) for r in ledger.rounds],
            "forecast": _forecast(ledger.forecast) if ledger.forecast else None,
            "stop": ledger.stop,
        }
    )


def costs_page(ledger: Ledger, class_names: Sequence[str], costs: CostSettings) -> str:
    """Everything of the ledger as one HTML file."""
    if not ledger.rounds:
        return page("What the rounds cost", bullets(["no round has chosen its images yet"]))
    sheets = (people_sheet(ledger), models_sheet(ledger), cells_sheet(ledger, class_names))
    rounds = (hours_sheet(ledger, costs), gains_sheet(ledger))
    parts = [
        *(section(sheet.title, _table(sheet)) for sheet in rounds),
        section("A further round?", bullets(stop_lines(ledger.stop))),
        section("The next round", bullets(forecast_lines(ledger, costs))),
        *(section(sheet.title, _table(sheet)) for sheet in sheets),
        section("How it is counted", bullets(notes(ledger, costs))),
    ]
    return page("What the rounds cost", Markup("\n").join(parts))


def _table(sheet: Sheet) -> Markup:
    return table(sheet.headers, sheet.rows, text_columns=sheet.text_columns)


def _round(r: RoundCost, class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "round": r.number,
        "selected": r.selected,
        "failures": r.failures,
        "fair_or_worse": r.confirmed,
        "test_set": r.test_set,
        "last_mos": r.last_mos,
        "work": {work.value: _spent(spent) for work, spent in r.spent.items()},
        "hours": r.hours,
        "gain": {"image_set": r.gain.image_set, **asdict(r.gain.estimate)} if r.gain else None,
        "points_per_hour": r.points_per_hour,
        "people": [
            {
                "work": p.work,
                "person": p.person,
                **_spent(p.spent),
                "median_s": p.median_s,
                "vetoes": p.vetoes,
            }
            for p in r.people
        ],
        "models": [{"competitor": name, **_yield(worth)} for name, worth in r.models.items()],
        "cells": [
            {
                "competitor": cell.competitor,
                "class": class_names[cell.class_id],
                "role": cell.role,
                **_yield(worth),
            }
            for cell, worth in r.cells.items()
        ],
    }


def _spent(spent: Spent) -> dict[str, Any]:
    return {
        "answers": spent.pieces,
        "unknown": spent.unknown,
        "seconds": None if spent.hours is None else spent.seconds,
        "hours": spent.hours,
    }


def _yield(found: Yield) -> dict[str, Any]:
    return {
        "images": found.images,
        **_spent(found.spent),
        "judged": found.judged,
        "good": found.good,
        "false_positive_share": found.false_positive_share,
        "vetoed": found.vetoed,
        "failures": found.failures,
        "failures_per_hour": found.failures_per_hour,
    }


def _forecast(expected: Forecast) -> dict[str, Any]:
    return {
        "from_rounds": expected.rounds,
        "selected": expected.selected,
        "work": {work.value: _spent(spent) for work, spent in expected.spent.items()},
        "hours": expected.hours,
        "failures": expected.failures,
        "points": expected.points,
        "points_of_rounds": [gain.points for gain in expected.gains],
    }
