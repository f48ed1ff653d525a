"""`mad`: every subcommand of the three packages."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mad_backend.cli import DEFAULT_CONFIG, Config, print_status
from mad_backend.cli import app as backend_commands
from mad_backend.core.rounds import RoundState
from mad_backend.errors import MadError, SettingsError
from sync.cli import app as sync_commands
from sync.connection import connect
from training.costs_cli import app as costs_commands
from training.duel_cli import app as duel_commands
from training.failures_cli import app as failures_commands
from training.finetune_cli import app as finetune_commands
from training.report_cli import app as report_commands
from training.simulation_cli import app as simulation_commands

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds the failures of a segmentation model, has people confirm and label them in Label Studio, and "
    "fine-tunes the model on them, round by round.",
)
for commands in (
    backend_commands,
    sync_commands,
    finetune_commands,
    costs_commands,
    duel_commands,
    failures_commands,
    report_commands,
    simulation_commands,
):
    app.registered_commands.extend(commands.registered_commands)
console = Console()


def main() -> None:
    """Runs the command line; an error a user can act on is one line on stderr and exit status 1."""
    # Threads that spin while they wait take the cores from Label Studio and from each other: on two busy cores a
    # training step took 0.56 s spinning, 0.18 s waiting. Set before torch is imported; children inherit it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for noisy in ("alembic", "urllib3", "waitress.queue"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A tick that is still at work when the next is due is normal, not worth a warning each time.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    try:
        app()
    except MadError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"error: {error}", style="red", markup=False, highlight=False
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command(epilog="Example: mad demo --data ../shared/data --exit")
def demo(
    data: Annotated[
        Path | None, typer.Option(help="Folder with voc/, coco_voc/ and models/: run on real photos.")
    ] = None,
    workspace: Annotated[Path, typer.Option(help="Where the demo keeps everything.")] = Path("runs"),
    by_hand: Annotated[bool, typer.Option("--by-hand", help="You rate and draw in the browser.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop all services when the round is over.")] = False,
    label_studio: Annotated[
        Path, typer.Option(help="The label-studio executable of a virtual environment of its own.")
    ] = Path(".venv-label-studio/bin/label-studio"),
) -> None:
    """One complete round on a private Label Studio, with simulated people; run it again for the next round."""
    from training.demo import Demo

    logging.getLogger().setLevel(logging.WARNING)  # its own lines tell what is going on
    Demo(workspace, data, label_studio, console, by_hand=by_hand).run(stay=not leave)


@app.command(epilog="Example: mad scan --config mad.yaml")
def scan(
    target: Annotated[
        str | None, typer.Option(help="Version of the target model; default: the one that is served.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Brings label maps and scores of every model on the pool up to date; Ctrl-C at any time, it goes on from there."""
    from sync.pool import mirrored_sources, refresh_mirrors
    from training.project import Project
    from training.scanning import ScanDisplay, scan_pool, tell

    began = time.monotonic()
    project = Project.open(config)
    if mirrored_sources(project.settings):
        with console.status("fetching what is new in Label Studio"):
            refresh_mirrors(project.settings, connect(project.settings))
    version = project.store.versions.get(target) if target else project.current_target()
    console.print(f"scanning {len(project.pool)} images with {version.version} and its competitors")
    try:
        with ScanDisplay(console) as display:
            found = scan_pool(project, version, display.show)
    except KeyboardInterrupt:
        console.print("stopped; what is finished is kept, `mad scan` goes on from there")
        raise
    tell(found, console, time.monotonic() - began)


@app.command(epilog="Example: mad select --config mad.yaml --dry-run")
def select(
    number: Annotated[
        int | None, typer.Option("--round", help="Take this round's target version; default: the served one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show M, record nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with every image of M.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """What M would be now, per class and competing model, from the scores of the last scan; loads no model."""
    if not dry_run:
        raise SettingsError(
            "a round chooses and records M by itself; add --dry-run to see what it would choose"
        )
    from training.project import Project
    from training.selecting import preview_as_json, preview_selection
    from training.selection_table import LEGEND, selection_table, summary_lines

    project = Project.open(config)
    rounds = project.store.rounds
    target = project.current_target() if number is None else project.target_of(rounds.get(number))
    preview = preview_selection(project, target)
    if as_json:
        sys.stdout.write(json.dumps(preview_as_json(preview)) + "\n")
        return
    console.print(selection_table(preview), *summary_lines(preview), LEGEND, sep="\n", highlight=False)


@app.command(epilog="Example: mad new-round --config mad.yaml")
def new_round(config: Config = DEFAULT_CONFIG) -> None:
    """Checks everything, then starts the next round; `mad schedule` drives it."""
    from training.costs import stop_line
    from training.project import Project
    from training.start import start_round

    project = Project.open(config)
    if reasons := stop_line(project):
        told = f"the stop rule speaks against another round: {reasons}"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    with console.status("checking images, models and Label Studio"):
        started = start_round(project, connect(project.settings))
    console.print(f"round {started.number} started; `mad schedule` drives it, `mad status` shows it")


@app.command(epilog="Example: mad tick --config mad.yaml")
def tick(config: Config = DEFAULT_CONFIG) -> None:
    """Takes the current round as far as it goes without people, once; for teams with a scheduler of their own."""
    from training.people import LabelStudioPeople
    from training.project import Project
    from training.rounds import RoundRunner

    project = Project.open(config)
    runner = RoundRunner(project, LabelStudioPeople(project, connect(project.settings)))
    with console.status("at work; `mad status` elsewhere shows how far"):
        runner.tick()
    print_status(project.store.rounds.all())


@app.command(epilog="Example: mad schedule --config mad.yaml")
def schedule(config: Config = DEFAULT_CONFIG) -> None:
    """Drives rounds unattended: a look every schedule.tick_s seconds, new rounds by schedule.new_round."""
    from training.project import Project
    from training.scheduler import run_scheduler

    project = Project.open(config)
    run_scheduler(project, connect(project.settings))


@app.command(hidden=True)
def step(number: int, state: RoundState, config: Config = DEFAULT_CONFIG) -> None:
    """One heavy step of a round, in a process of its own; called by the scheduler."""
    from training.project import Project
    from training.rounds import RoundRunner

    RoundRunner(Project.open(config), None, isolate=False).step(number, state)


if __name__ == "__main__":
    main()
