"""`mad simulate`: what each strategy would gain on labelled images, before anybody is paid for labels."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mad_backend.cli import DEFAULT_CONFIG, Config
from mad_backend.errors import SettingsError

app = typer.Typer()
console = Console()

EXAMPLE = """Example: mad simulate --config mad.yaml --strategies mad,random,entropy --seeds 3

The pool's sources must say where their label maps are (masks); no Label Studio is asked. Ctrl-C at any time, the same
command goes on from there.
"""


@app.command(epilog=EXAMPLE)
def simulate(
    config: Config = DEFAULT_CONFIG,
    strategies: Annotated[
        str,
        typer.Option(
            help="mad, mad-unrated, random, entropy, margin, bald, k-center, or a mix such as mad+random; by commas."
        ),
    ] = "mad,random,entropy",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, ...")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each trial.")] = 1,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; default: one for each core, eight at most.")
    ] = None,
    goal: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="mIoU on W: how many labels each strategy needs for it."),
    ] = None,
    workspace: Annotated[
        Path, typer.Option(help="Where everything is kept; what is finished there is not done again.")
    ] = Path("runs/simulation"),
    experiment: Annotated[
        str | None,
        typer.Option(
            help="Instead of --config, one of ours: a (VOC, COCO), b (VOC, fresh), c (CamVid), d (drawn scenes)."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The experiment's data; d draws its own into the workspace.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Experiment b: ImageNet weights of EfficientNet-Lite0, a .pth.")
    ] = None,
) -> None:
    """Strategies side by side with equal budgets, on labelled images with simulated people: Tables 1 and 2, curves."""
    from training.simulation.experiments import DRAWN
    from training.simulation.run import Wanted, simulate_all

    if (experiment is None or data is None) and not (data is None and experiment in (None, DRAWN)):
        raise SettingsError("--experiment and --data go together: --experiment a --data ../shared/data")
    names = tuple(dict.fromkeys(name.strip() for name in strategies.split(",")))
    wanted = Wanted(names, seeds, rounds, jobs, goal)
    try:
        simulate_all(wanted, config, workspace.resolve(), experiment, data, backbone, console)
    except KeyboardInterrupt:
        console.print("stopped; what is finished is kept, the same command goes on from there")
        raise


@app.command(hidden=True)
def trial(
    strategy: str,
    seed: int,
    rounds: int,
    root: Annotated[Path, typer.Option()],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """One trial of a simulation, in a process of its own."""
    from training.simulation.board import Plan, trial_report
    from training.simulation.world import World

    plan = Plan(config, root, (strategy,), seed + 1, rounds)
    folder = plan.folder(strategy, seed)
    world = World.open_for(config, folder, plan.cache, seed)
    # Now: it imports torch and mmengine, which takes seconds.
    from training.simulation.trial import run_trial

    run_trial(world, strategy, rounds, trial_report(folder))
