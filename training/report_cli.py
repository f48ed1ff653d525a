"""Subcommands that tell what rounds brought: `mad report`, `mad stability`."""

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, assert_never

import typer
from rich.console import Console

from mad_backend.cli import DEFAULT_CONFIG, Config
from mad_backend.errors import SettingsError

if TYPE_CHECKING:
    from training.report import Report

app = typer.Typer()
console = Console()


class Format(StrEnum):
    """How `mad report` writes."""

    TEXT = "text"
    HTML = "html"
    CSV = "csv"
    JSON = "json"


Out = Annotated[Path | None, typer.Option(help="File to write; its ending says how: .html, .csv, .json.")]


@app.command(epilog="Example: mad report --config mad.yaml --out table-1.html")
def report(
    form: Annotated[
        Format | None, typer.Option("--format", help="Default: as --out ends, else text.")
    ] = None,
    out: Out = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="text: the IoU of every class as well; the others have it.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Table 1: every model on T(0) and on every T so far, with paired differences, and what the gate decided last."""
    from training.decisions import last_decision
    from training.project import Project
    from training.report import build_report
    from training.report_files import report_csv, report_json, write_text
    from training.report_page import report_page

    project = Project.open(config)
    found = build_report(project)
    wanted = form or _format_of(out)
    match wanted:
        case Format.TEXT:
            if out is None:
                _print(console, found, last_decision(project), classes=classes)
                return
            text = _as_text(found, last_decision(project), classes=classes)
        case Format.HTML:
            text = report_page(found, last_decision(project))
        case Format.CSV:
            text = report_csv(found)
        case Format.JSON:
            text = report_json(found)
        case _:
            assert_never(wanted)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)
        console.print(f"written: {out}", markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example: mad stability --config mad.yaml --out stability.html")
def stability(
    out: Annotated[Path | None, typer.Option(help="File to write as well, .html or .svg.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of the table.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Whether T is large enough: how the ranking of all models on its first images agrees with that on all (Fig. 7)."""
    from training.project import Project
    from training.report_files import as_json as json_text
    from training.report_files import write_text
    from training.stability import (
        build_stability,
        stability_fields,
        stability_page,
        stability_svg,
        stability_table,
    )

    ending = out.suffix.lower() if out else ".svg"
    if ending not in {".html", ".svg"}:
        raise SettingsError(f"--out {out}: wanted a name that ends in .html or .svg")
    found = build_stability(Project.open(config))
    if out:
        write_text(out, stability_page(found) if ending == ".html" else stability_svg(found))
    if as_json:
        sys.stdout.write(json_text(stability_fields(found)))
        return
    console.print(stability_table(found))
    for line in (*(one.line for one in found), *([f"written: {out}"] if out else [])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _format_of(out: Path | None) -> Format:
    ending = out.suffix.removeprefix(".").lower() if out else ""
    return Format(ending) if ending in set(Format) else Format.TEXT


def _as_text(found: "Report", decision: list[str], *, classes: bool) -> str:
    sheet = io.StringIO()
    _print(Console(file=sheet, width=200), found, decision, classes=classes)
    return sheet.getvalue()


def _print(shown_on: Console, found: "Report", decision: list[str], *, classes: bool) -> None:
    from training.report_text import change_lines, class_table, notes, table_1

    shown_on.print(table_1(found))
    for image_set in found.images if classes else ():
        shown_on.print(class_table(found, image_set))
    for line in (*change_lines(found), *notes(found), *decision):
        shown_on.print(line, markup=False, highlight=False, soft_wrap=True)
