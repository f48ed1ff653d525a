"""A whole simulation: its project, what trials share, the trials, the duels between them, and the results."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from mad_backend.errors import MadError
from training.display import Display
from training.simulation.board import Plan, run_trials
from training.simulation.duels import hold_duels
from training.simulation.experiments import experiment_settings, prepare_experiment
from training.simulation.page import write_results
from training.simulation.prepare import prepare
from training.simulation.results import gather
from training.simulation.strategies import parse_mix
from training.simulation.tables import confusion_lines, tables_of
from training.simulation.world import World

MOST_JOBS = 8


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for; `jobs` None: as many trials at once as there are cores, `MOST_JOBS` at most."""

    strategies: tuple[str, ...]
    seeds: int
    rounds: int
    jobs: int | None
    goal: float | None


def simulate_all(
    wanted: Wanted,
    config: Path,
    workspace: Path,
    experiment: str | None,
    data: Path | None,
    backbone: Path | None,
    console: Console,
) -> None:
    """Runs what is not finished and prints the results; raises MadError."""
    for name in wanted.strategies:
        parse_mix(name)
    if experiment is not None:
        workspace = workspace / f"experiment-{experiment}"
        data = data or workspace / "data"
        config = experiment_settings(experiment, data, workspace)
    plan = Plan(config.resolve(), workspace, wanted.strategies, wanted.seeds, wanted.rounds)
    with _alone_in(workspace):
        _simulate(wanted, plan, experiment, data, backbone, console)


def _simulate(
    wanted: Wanted,
    plan: Plan,
    experiment: str | None,
    data: Path | None,
    backbone: Path | None,
    console: Console,
) -> None:
    world = World.open_for(plan.config, plan.root / "shared", plan.cache, seed=0)
    if experiment is not None and data is not None:
        prepare_experiment(experiment, world, data, backbone, console)
    columns = TextColumn("preparing: {task.description}"), BarColumn(), MofNCompleteColumn()
    with Display(console, columns, "reading images") as display:
        prepare(
            world,
            plan.strategies,
            lambda what, done, total: display.tell(
                what, done, total, f"preparing: {what}, {done} of {total}"
            ),
        )
    fingerprints = {(name, seed): world.fingerprint(name, seed) for name, seed in plan.trials}
    trials = run_trials(plan, fingerprints, wanted.jobs or min(os.cpu_count() or 1, MOST_JOBS), console)
    results = gather(trials, world, wanted.goal)
    duels = hold_duels(plan, trials)
    tables = tables_of(results, duels)
    for found in tables:
        console.print(found.rich())
    for line in confusion_lines(results):
        console.print(line, highlight=False, soft_wrap=True)
    title = f"Experiment {experiment.upper()}" if experiment else f"Simulation of {plan.config.name}"
    console.print(f"page: {write_results(plan.root, title, results, duels, tables)}", soft_wrap=True)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Raises MadError where another simulation is at work in `root`: both would train the same trials."""
    root.mkdir(parents=True, exist_ok=True)
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MadError(
                f"another `mad simulate` is at work in {root}; wait for it, stop it, or give another --workspace"
            ) from None
        yield
    finally:
        os.close(lock)
