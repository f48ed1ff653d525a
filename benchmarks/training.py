"""Fine-tuning as `mad` does it beside mmsegmentation's own Runner, on the same configuration and images.

Equal on both sides: network, heads and losses, batch size, size of images into the network, augmentation, optimiser,
number of threads; images and label maps are files of the same folders. Measuring on a dev set and writing checkpoints
is timed on neither. What differs is what is compared:
  - the Runner is set up as tools/train.py with a stock configuration does it: BaseSegDataset, loaders, InfiniteSampler,
    default hooks, one process that reads (on a GPU four). One is the fastest for it on two cores.
  - ours draws half of each batch from S and half from S(0), measures the accuracy of a training batch, which is only
    logged, without sorting, has batches handed over in one piece, and on a GPU keeps decoded images in memory.
Settings are the defaults: on a CPU images are read between steps and kept decoded, in the order channels-last.
A side is a process of its own. Both are started, and take turns of 20 iterations after 3 that are not timed; figures
are medians of the turns, by the clock. Memory is the most that the process has had, with what its readers have for
themselves.

On a GPU, which is not run where there is none, at 512 x 512 on CamVid: ours with bf16 and channels-last beside the
Runner as configured (fp32), and beside the Runner with --amp.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.figure import print_absent, print_figure
from benchmarks.training_setup import CAMVID, Setup, camvid, drawn_scenes

TURNS = 5
CPU_GOAL, GPU_GOAL, WAITING_GOAL = 1.0, 1.2, 0.03
STOCK = "mmsegmentation's Runner"


def main() -> None:
    """On the CPU, from which CUDA devices are hidden, then on the first of those."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true", help="only the figures for a GPU")
    parser.add_argument("--turns", type=int, default=TURNS, help="of each side")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if not given.gpu:
            on_cpu(Path(name), given.turns)
        on_gpu(Path(name), given.turns)


def on_cpu(folder: Path, turns: int) -> None:
    """Fast-SCNN at batch size 8 and 2, on drawn scenes and on street scenes."""
    for batch_size in (8, 2):
        setup = drawn_scenes(folder, batch_size)
        compare(f"drawn scenes 256 x 192, batch {batch_size}", setup, (), STOCK, (), turns, CPU_GOAL)
    if CAMVID.is_dir():
        compare("CamVid 240 x 180, batch 8", camvid(folder, 8), (), STOCK, (), turns, CPU_GOAL)
    else:
        print_absent("training, CamVid", CAMVID)


def on_gpu(folder: Path, turns: int) -> None:
    """Where there is one."""
    import torch

    if not torch.cuda.is_available():
        say_no_gpu()
        return
    if not CAMVID.is_dir():
        print_absent("training on a GPU", CAMVID)
        return
    fast = ("--precision", "bf16", "--channels-last")
    for batch_size in (8, 2):
        setup, name = camvid(folder, batch_size, (512, 512)), f"CamVid 512 x 512, batch {batch_size}, bf16"
        compare(name, setup, fast, STOCK, (), turns, GPU_GOAL, on_gpu=True)
        compare(name, setup, fast, f"{STOCK} with --amp", fast[:2], turns, 1.0, on_gpu=True)


def say_no_gpu() -> None:
    """Instead of figures."""
    told = {"name": "training on a GPU", "skipped": "not run: no CUDA device"}
    sys.stdout.write(json.dumps(told) + "\n")


def compare(
    name: str,
    setup: Setup,
    ours: Sequence[str],
    peer: str,
    theirs: Sequence[str],
    turns: int,
    goal: float,
    *,
    on_gpu: bool = False,
) -> None:
    """Prints the figures of both sides with these options."""
    with ExitStack() as running:
        sides = [
            running.enter_context(Side([which, setup.dump(), *options], on_gpu))
            for which, options in (("ours", ours), ("stock", theirs))
        ]
        both = [[side.turn() for side in sides] for _ in range(turns + 1)][
            1:
        ]  # the first, on cold caches, is left out
        own, other = ([turn[side] for turn in both] for side in (0, 1))
        memory, peer_memory = (side.memory() for side in sides)
    rates = [statistics.median(turn.images_s for turn in turns_of) for turns_of in (own, other)]
    print_figure(f"training, {name}", "images/s", *rates, peer, goal)
    waiting = statistics.median(turn.waiting for turn in own)
    print_figure(
        f"waiting for data, {name} (the Runner: {statistics.median(turn.waiting for turn in other):.3f})",
        "share of an iteration",
        waiting,
        1.0,
        "an iteration",
        WAITING_GOAL,
        less_is_better=True,
    )
    print_figure(
        f"peak memory, {name}", "MB", memory["memory"], peer_memory["memory"], peer, 1.0, less_is_better=True
    )
    if memory["gpu"]:
        print_figure(
            f"peak GPU memory, {name}",
            "MB",
            memory["gpu"],
            peer_memory["gpu"],
            peer,
            1.0,
            less_is_better=True,
        )


@dataclass(frozen=True)
class Turn:
    """Images a second, and the share of an iteration until its batch is there."""

    images_s: float
    waiting: float


class Side:
    """A process of `training_side`, which trains when asked; gone at the end."""

    def __init__(self, arguments: Sequence[str], on_gpu: bool) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on exit
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.training_side", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ if on_gpu else os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe:
                pipe.close()

    def turn(self) -> Turn:
        """Trains for some iterations while the other side waits."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = self._answer()
        return Turn(told["rate"], told["waiting"])

    def memory(self) -> dict[str, float]:
        """Ends the training; MB of "memory" and of "gpu"."""
        assert self._process.stdin
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise SystemExit(f"a side of the training benchmark failed: {self._log.read()[-3000:]}")
        told: dict[str, float] = json.loads(line)
        return told


if __name__ == "__main__":
    main()
