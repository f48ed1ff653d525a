"""`mad costs`: what people's work cost and brought, what the next round will, and whether it is worth it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mad_backend.cli import DEFAULT_CONFIG, Config

if TYPE_CHECKING:
    from training.costs_sheets import Sheet

app = typer.Typer()
console = Console()


@app.command(epilog="Example: mad costs --config mad.yaml --forecast --out costs.html")
def costs(
    forecast: Annotated[
        bool, typer.Option("--forecast", help="What the next round will take and bring, as well.")
    ] = False,
    cells: Annotated[
        bool, typer.Option("--cells", help="By class and role as well; the page and JSON have it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object with everything.")] = False,
    out: Annotated[Path | None, typer.Option(help="HTML file to write, with everything.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Hours people rated, labelled and checked, by round, person and competing model, and what came of them."""
    from training import costs_sheets as sheets
    from training.costs import build_ledger
    from training.costs_files import costs_json, costs_page
    from training.project import Project
    from training.report_files import write_text

    project = Project.open(config)
    settings, names = project.settings.costs, project.labels.names
    ledger = build_ledger(project)
    if out is not None:
        write_text(out, costs_page(ledger, names, settings))
        Console(stderr=as_json).print(f"written: {out}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(costs_json(ledger, names))
        return
    if not ledger.rounds:
        console.print("no round has chosen its images yet; `mad new-round` starts one")
        return
    found = [sheets.hours_sheet(ledger, settings), sheets.gains_sheet(ledger)]
    found += [sheets.people_sheet(ledger), sheets.models_sheet(ledger)]
    found += [sheets.cells_sheet(ledger, names)] if cells else []
    for sheet in found:
        console.print(_table(sheet))
    lines = [*sheets.notes(ledger, settings), *sheets.stop_lines(ledger.stop)]
    for line in lines + (sheets.forecast_lines(ledger, settings) if forecast else []):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(sheet: "Sheet") -> Table:
    table = Table(title=sheet.title, title_justify="left")
    for n, header in enumerate(sheet.headers):
        table.add_column(header, justify="left" if n < sheet.text_columns else "right")
    for row in sheet.rows:
        table.add_row(*map(escape, row))
    return table
