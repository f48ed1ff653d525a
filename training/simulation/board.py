"""Trials side by side, each in a process of its own: one that fails or is killed costs the others nothing."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mad_backend.errors import MadError
from training.finetuning.files import write_bytes
from training.people import Report
from training.processes import last_line, start_mad, stop
from training.simulation.records import Trial

LINE_EVERY_S = 30.0
"""Between lines about what is going on, where the output is no terminal."""


@dataclass(frozen=True)
class Plan:
    """What a simulation consists of: every strategy under every seed 0..seeds - 1, `rounds` rounds each."""

    config: Path
    root: Path
    strategies: tuple[str, ...]
    seeds: int
    rounds: int

    def folder(self, strategy: str, seed: int) -> Path:
        """Where a trial keeps everything of its own."""
        return self.root / "trials" / f"{strategy}-{seed}"

    @property
    def cache(self) -> Path:
        """What trials share: label maps, scores, answers of teachers."""
        return self.root / "cache"

    @property
    def trials(self) -> list[tuple[str, int]]:
        """Seed by seed, so that an unfinished simulation compares all strategies under the seeds it has."""
        return [(strategy, seed) for seed in range(self.seeds) for strategy in self.strategies]


def run_trials(
    plan: Plan, fingerprints: Mapping[tuple[str, int], str], jobs: int, console: Console
) -> list[Trial]:
    """Every trial, at most `jobs` at once; those that are finished, by their fingerprints, are only read.

    Raises MadError naming the trials that failed and why, once all others are through.
    """
    waiting = [t for t in plan.trials if not Trial.finished(plan.folder(*t), fingerprints[t], plan.rounds)]
    running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
    failed: dict[tuple[str, int], str] = {}
    done: list[tuple[str, int]] = []
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        with _display(plan, console, running, done, len(waiting)) as show:
            while waiting or running:
                while waiting and len(running) < jobs:
                    trial = waiting.pop(0)
                    running[trial] = _start(plan, trial, threads)
                for trial in [t for t, child in running.items() if child.poll() is not None]:
                    child = running.pop(trial)
                    done.append(trial)
                    if child.returncode:
                        failed[trial] = last_line(_log(plan, trial))
                show()
                time.sleep(0.2)
    finally:
        for child in running.values():
            stop(child)
    if failed:
        reasons = "; ".join(f"{s}, seed {n}: {why} ({_log(plan, (s, n))})" for (s, n), why in failed.items())
        raise MadError(f"{len(failed)} of {len(done)} trials failed, the others are kept: {reasons}")
    found = [Trial.finished(plan.folder(*t), fingerprints[t], plan.rounds) for t in plan.trials]
    return [trial for trial in found if trial]


def trial_report(folder: Path) -> Report:
    """Tells the simulation's own process how far a trial is, twice a second at most."""
    last = [0.0]

    def report(what: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 0.5:
            last[0] = time.monotonic()
            write_bytes(folder / "progress.json", json.dumps([what, done, total]).encode())

    return report


def _start(plan: Plan, trial: tuple[str, int], threads: int) -> "subprocess.Popen[bytes]":
    strategy, seed = trial
    arguments = ["trial", strategy, str(seed), str(plan.rounds), "--root", str(plan.root)]
    log = _log(plan, trial)
    log.unlink(missing_ok=True)
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    return start_mad([*arguments, "--config", str(plan.config)], log, environment)


def _log(plan: Plan, trial: tuple[str, int]) -> Path:
    return plan.folder(*trial) / "trial.log"


@contextmanager
def _display(
    plan: Plan,
    console: Console,
    running: dict[tuple[str, int], "subprocess.Popen[bytes]"],
    done: list[tuple[str, int]],
    total: int,
) -> Iterator[Callable[[], None]]:
    """A table of running trials on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            yield lambda: live.update(_table(plan, list(running), len(done), total))
        return
    last = [time.monotonic()]

    def line() -> None:
        if time.monotonic() - last[0] > LINE_EVERY_S:
            last[0] = time.monotonic()
            now = ", ".join(f"{s} {seed}: {_progress(plan, (s, seed))}" for s, seed in running)
            console.print(f"{len(done)} of {total} trials done; {now}", highlight=False)

    yield line


def _table(plan: Plan, running: Sequence[tuple[str, int]], done: int, total: int) -> Table:
    table = Table(
        "strategy", "seed", "at work on", title=f"{done} of {total} trials done", title_justify="left"
    )
    for trial in running:
        table.add_row(trial[0], str(trial[1]), _progress(plan, trial))
    return table


def _progress(plan: Plan, trial: tuple[str, int]) -> str:
    try:
        what, done, total = json.loads((plan.folder(*trial) / "progress.json").read_bytes())
    except (OSError, ValueError):
        return "starting"
    return f"{what} {done} of {total}"
