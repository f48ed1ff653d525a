"""`mad duel`: two models compared on the open world with thirty labels."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mad_backend.cli import DEFAULT_CONFIG, Config
from mad_backend.errors import SettingsError

if TYPE_CHECKING:
    from mad_backend.core.duel import Duel
    from mad_backend.pool.sources import LabelledImage
    from training.duel import DuelReport
    from training.project import Project

app = typer.Typer()
console = Console()


@app.command(epilog="Example: mad duel deeplab@0 deeplab@1 --budget 30 --config mad.yaml")
def duel(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B",
            help="Two of: versions of the target, competing models, path=WEIGHTS of the target's kind.",
        ),
    ] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Images to label; default: 30.")] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Label maps are those of the pool's sources; for experiments.")
    ] = False,
    close: Annotated[
        bool, typer.Option("--close", help="Tell the result without the images that nobody labelled.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Every duel there is; nothing else is done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Pits two models on the images on which they disagree most; again for what people have labelled since."""
    from training.duel import judge_duel, open_duel, oracle_labels
    from training.duel_models import find_models
    from training.project import Project
    from training.scanning import ScanDisplay

    project = Project.open(config)
    if show:
        _list(project, as_json=as_json)
        return
    if models is None or len(models) != 2:
        raise SettingsError(
            f"a duel is of two models, got {len(models or ())}; for example mad duel deeplab@0 deeplab@1"
        )
    told = Console(stderr=True) if as_json else console
    try:
        with ScanDisplay(told) as display:
            found = open_duel(project, find_models(project, models), budget, display.show)
    except KeyboardInterrupt:
        told.print("stopped; what is finished is kept, the same command goes on from there")
        raise
    if len(found.images) < found.budget:
        told.print(
            f"{len(found.images)} images instead of {found.budget}: no more pass test_set.per_class and selection.n3",
            soft_wrap=True,
        )
    labelled = oracle_labels(project, found) if oracle else _ask(project, found, told)
    if not close and len(labelled) < len(found.images):
        _wait(found, len(labelled), told, as_json=as_json)
    else:
        report = judge_duel(project, found, labelled, "the pool's sources" if oracle else "people")
        _tell(project, found, labelled, report, as_json=as_json)


def _ask(project: "Project", found: "Duel", told: Console) -> "list[LabelledImage]":
    """Sends what is not at Label Studio yet, and says who drew how much and what is in the way."""
    from sync.connection import connect
    from training.duel_people import ask_people, people_labels

    with told.status("sending images to Label Studio and fetching label maps"):
        progress = ask_people(project, found, connect(project.settings))
    for who, count in sorted(progress.by_person.items()):
        told.print(f"{who}: {count} label maps", markup=False, highlight=False)
    for problem in progress.problems:
        told.print(f"{problem.image_id}: {problem.text}", markup=False, highlight=False, soft_wrap=True)
    return people_labels(project, found)


def _wait(found: "Duel", labelled: int, told: Console, *, as_json: bool) -> None:
    told.print(
        f"{labelled} of {len(found.images)} label maps are there; the same command tells the result once all are, "
        "with --close now",
        soft_wrap=True,
    )
    if as_json:
        waits = {"first": found.first.name, "second": found.second.name, "drawn": len(found.images)}
        _write({**waits, "labelled": labelled, "result": None})


def _tell(
    project: "Project",
    found: "Duel",
    labelled: "list[LabelledImage]",
    report: "DuelReport",
    *,
    as_json: bool,
) -> None:
    from training.duel_files import report_fields, write_duel
    from training.duel_page import duel_lines

    page = write_duel(project, found, labelled, report)
    if as_json:
        _write(report_fields(report))
        return
    for line in (*duel_lines(report), f"page: {page}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _list(project: "Project", *, as_json: bool) -> None:
    from training.duel_files import list_duels

    known = list_duels(project)
    if as_json:
        _write(known)
        return
    table = Table("duel", "drawn", "images", "by people", "result")
    for one in known:
        result = one["result"]
        told = f"{result['verdict']}, label maps of {result['labels']}" if result else "not told yet"
        models = f"{one['first']} - {one['second']}"
        table.add_row(models, one["created_at"], str(len(one["images"])), str(one["labelled"]), told)
    console.print(table if known else "no duel yet")


def _write(fields: Any) -> None:
    from training.report_files import as_json

    sys.stdout.write(as_json(fields))
