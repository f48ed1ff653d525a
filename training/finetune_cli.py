"""Subcommands of fine-tuning without rounds: `mad finetune`, and `mad verify` for the record that every version has."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from mad_backend.cli import DEFAULT_CONFIG, Config
from mad_backend.errors import TrainingError
from training.display import Display

if TYPE_CHECKING:
    from training.finetune_by_hand import Comparison, FirstTry

app = typer.Typer()
console = Console()

EXAMPLE = """Example: mad finetune --config mad.yaml --masks drawn/ --images photos/

Enough in mad.yaml for a first try:

\b
workspace: runs/first-try
label_set: label_sets/voc.yaml
s0: [{name: s0, images: train/images, masks: train/masks}]
t0: [{name: t0, images: val/images, masks: val/masks}]
models: {name: deeplab, target: {kind: hf, path: weights/deeplab}}
"""


@app.command(epilog=EXAMPLE)
def finetune(
    masks: Annotated[
        Path, typer.Option(help="Folder of label maps: index PNGs of the label set's ids, 255 is void.")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of their images, by the same names; default: the pool.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Version to start from; default: the one that is served.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the weights go; default: in the workspace's checkpoints.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Fine-tunes the target on a folder of label maps, without rounds; Ctrl-C at any time, it goes on from there."""
    from training.finetune_by_hand import finetune_by_hand, open_project, prepare

    project = open_project(config)
    with console.status("checking label maps, images and the target"):
        job = prepare(project, masks, images, target)
    console.print(
        f"{job.version}: {job.started_from} learns {len(job.failures)} images of S beside {len(job.replay)} of S(0)"
    )
    if console.is_terminal:
        logging.getLogger("training.finetuning").setLevel(logging.WARNING)  # the bar tells of epochs
    try:
        with Display(
            console, (BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}")), "starting"
        ) as display:
            found = finetune_by_hand(project, job, out, partial(_show, display))
    except KeyboardInterrupt:
        console.print("stopped; what is finished is kept, the same command goes on from there")
        raise
    tell(found, config, console)


@app.command(epilog="Example: mad verify runs/my-project/checkpoints/deeplab@1")
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a version, with meta.json.")],
    data: Annotated[
        Path | None, typer.Option(help="Where the images lie now; default: where they lay then.")
    ] = None,
) -> None:
    """Whether weights, images and label maps are those of a version's record, by their checksums."""
    from training.finetuning.record import read_meta
    from training.finetuning.record import verify as problems_of

    meta = read_meta(folder)
    problems = problems_of(folder, data)
    for problem in problems:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise TrainingError(f"{meta['version']} is not what its record says ({len(problems)} files differ)")
    counts = ", ".join(f"{n} {use}" for use, n in meta["data"]["images"].items())
    console.print(f"{meta['version']}: weights and data are those of its record ({counts})", highlight=False)


def _show(display: Display, what: str, done: int, total: int) -> None:
    display.tell(what, done, total, f"{done} of {total} steps: {what}")


def tell(found: "FirstTry", config: Path, shown_on: Console) -> None:
    """What was kept and learnt, where the weights are and how they are used."""
    job = found.job
    table = Table("dataset mIoU", job.started_from, "after", "difference in points [95 % interval]")
    table.add_row(f"T(0), {found.benchmark.images} images that are only reported", *_cells(found.benchmark))
    table.add_row(f"S, {found.failures.images} images that were learnt", *_cells(found.failures))
    shown_on.print(table)
    lines = [
        "S shows what was learnt by heart, T(0) what was kept; what other images gained only a test set of them tells",
        f"weights and their record: {found.folder}",
    ]
    if found.has_versions:
        lines.append(
            f"rounds of this project stand on the target it has: use {found.path} in a project of its own"
        )
    else:
        lines += [f"to use them, write in {config}:", "  models:", "    target:", f"      path: {found.path}"]
    for line in lines:
        shown_on.print(line, markup=False, highlight=False, soft_wrap=True)


def _cells(compared: "Comparison") -> tuple[str, str, str]:
    change = compared.change
    return (
        f"{compared.before:.4f}",
        f"{compared.after:.4f}",
        f"{100 * change.value:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}]",
    )
