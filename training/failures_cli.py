"""Subcommands that tell what goes wrong: `mad failures`, `mad similar`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from mad_backend.cli import DEFAULT_CONFIG, Config
from mad_backend.errors import SettingsError
from training.display import Display

app = typer.Typer()
console = Console()

Out = Annotated[Path | None, typer.Option(help="HTML page to write as well, with pictures.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object with everything.")]


@app.command(epilog="Example: mad failures --config mad.yaml --out failures.html")
def failures(
    number: Annotated[
        int | None, typer.Option("--round", help="Only what this round found; default: all.")
    ] = None,
    as_json: AsJson = False,
    out: Out = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """What goes wrong: images of S and T by what is taken for what, size, position and appearance, round by round."""
    from training.failures import build_failures
    from training.failures_page import failure_page
    from training.failures_text import LEGEND, appearance_table, failure_fields, failure_table, note_lines
    from training.project import Project
    from training.report_files import as_json as json_text
    from training.report_files import write_text

    _check_ending(out)
    project = Project.open(config)
    with _Progress() as display:
        found = build_failures(project, number, display.show)
    if out:
        write_text(out, failure_page(project, found))
    names = project.labels.names
    if as_json:
        sys.stdout.write(json_text(failure_fields(found, names)))
        return
    console.print(failure_table(found, names))
    if found.appearances:
        console.print(appearance_table(found, names))
    for line in (*LEGEND, *note_lines(found), *([f"written: {out}"] if out else [])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(epilog="Example: mad similar street/000123 --top 20 --config mad.yaml --out similar.html")
def similar(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE_ID", help="An image of the pool, or the path of a photo.")
    ],
    top: Annotated[int, typer.Option(min=1, help="So many images.")] = 20,
    as_json: AsJson = False,
    out: Out = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Images of the pool that are most like one, by the features of the target; Ctrl-C keeps what is computed."""
    from training.project import Project
    from training.report_files import as_json as json_text
    from training.report_files import write_text
    from training.similar import find_similar, similar_fields, similar_lines, similar_page, similar_table

    _check_ending(out)
    project = Project.open(config)
    with _Progress() as display:
        found = find_similar(project, image, top, display.show)
    if out:
        write_text(out, similar_page(project, found))
    if as_json:
        sys.stdout.write(json_text(similar_fields(found)))
        return
    console.print(similar_table(found))
    for line in (*similar_lines(found), *([f"written: {out}"] if out else [])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Progress(Display):
    """On stderr, so that JSON stays alone on stdout."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        super().__init__(Console(stderr=True), columns, "reading")

    def show(self, what: str, done: int, total: int) -> None:
        self.tell(what, done, total, f"{what}: {done} of {total}")


def _check_ending(out: Path | None) -> None:
    if out and out.suffix.lower() != ".html":
        raise SettingsError(f"--out {out}: wanted a name that ends in .html")
