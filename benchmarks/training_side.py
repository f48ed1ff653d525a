"""One side of the training benchmark, ours or mmsegmentation's Runner, in a process that trains when it is told to.

    python -m benchmarks.training_side ours|stock SETUP [--precision bf16] [--channels-last]

Waits for a line before each turn of `WARM` + `TIMED` iterations, after which it prints a turn as JSON; when its input
ends, it prints its memory. Both sides have the same hook for that.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import psutil
import torch

from benchmarks.training_setup import Setup
from mad_backend.models.torchvision_operators import define_missing_operators

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    define_missing_operators()
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

WARM, TIMED = 3, 20
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 5e-4
FOR_EVER = 1_000_000
"""Iterations; a side ends when its input does."""


class EnoughError(Exception):
    """Ends a training."""


class TurnsHook(Hook):  # type: ignore[misc]
    """Times iterations, and what of each is spent until its batch is there; says so after each turn."""

    priority = "LOWEST"

    def __init__(self, tell: TextIO, batch_size: int) -> None:
        self._tell, self._batch_size = tell, batch_size
        self._done = 0
        self._total_s = self._waited_s = 0.0
        self._ended = time.perf_counter()

    def before_train_epoch(self, runner: Runner) -> None:
        self._ended = time.perf_counter()  # neither what follows an epoch is timed, nor what precedes it

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._done == 0:
            if not sys.stdin.readline():
                self._say(memory())  # while the processes that read are there
                raise EnoughError
            self._ended = time.perf_counter()
        self._began = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._done >= WARM:
            self._total_s += now - self._ended
            self._waited_s += self._began - self._ended
        self._ended = now
        self._done += 1
        if self._done == WARM + TIMED:
            rate = TIMED * self._batch_size / self._total_s
            self._say({"rate": rate, "waiting": self._waited_s / self._total_s})
            self._done, self._total_s, self._waited_s = 0, 0.0, 0.0

    def _say(self, told: dict[str, float]) -> None:
        self._tell.write(json.dumps(told) + "\n")
        self._tell.flush()


def memory() -> dict[str, float]:
    """MB: the most that this process has had, with what its workers have for themselves; of the GPU the most in use."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    workers = sum(worker.memory_full_info().uss for worker in psutil.Process().children(recursive=True))
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"memory": (peak + workers) / 1e6, "gpu": gpu / 1e6}


def ours(setup: Setup, turns: TurnsHook, given: argparse.Namespace, folder: Path) -> None:
    """As `mad` trains, with the recipe's values, but never measuring: epochs are far away."""
    from mad_backend.core.grid import Grid
    from mad_backend.models.mmseg_model import MmsegModel
    from mad_backend.pool.truths import Truth
    from mad_backend.settings import ModelSettings, TrainingSettings
    from mad_backend.settings_file import load_label_set
    from training.finetuning.dev import DevScore
    from training.finetuning.plan import RunPlan
    from training.finetuning.run import train
    from training.finetuning.samples import Sample

    def samples(images: str, masks: str) -> list[Sample]:
        return [
            Sample(p.stem, p, Truth(Path(masks) / f"{p.stem}.png"))
            for p in sorted(Path(images).glob("*.jpg"))
        ]

    grid = Grid(setup.grid)
    model_settings = ModelSettings(
        kind="mmseg", config=Path(setup.config), path=Path(setup.weights), fit="keep"
    )
    model = MmsegModel("ours", model_settings, load_label_set(Path(setup.label_set)), grid)
    model.config["custom_hooks"] = [turns]
    settings = TrainingSettings.model_validate(
        {
            "recipe": "paper",
            "epochs": FOR_EVER,
            "batch_size": setup.batch_size,
            "momentum": MOMENTUM,
            "weight_decay": WEIGHT_DECAY,
            "freeze_batch_norm": False,
            "precision": given.precision,
            "channels_last": given.channels_last or None,
        }
    )
    plan = RunPlan(
        samples(*setup.failures),
        samples(*setup.replay),
        grid,
        settings,
        0,
        lambda _: DevScore(0.0),
        lambda *_: None,
    )
    train(model, LEARNING_RATE, plan, folder)


def stock(setup: Setup, turns: TurnsHook, given: argparse.Namespace, folder: Path) -> None:
    """As tools/train.py has it: the configuration's data set and pipeline, default hooks, an infinite sampler."""
    from mmseg.utils import register_all_modules

    from mad_backend.settings_file import load_label_set

    register_all_modules()
    config = Config.fromfile(setup.config)
    labels = load_label_set(Path(setup.label_set))
    folders = [
        {
            "type": "BaseSegDataset",
            "data_prefix": {"img_path": images, "seg_map_path": masks},
            "img_suffix": ".jpg",
            "seg_map_suffix": ".png",
            "metainfo": {"classes": labels.names},
            "reduce_zero_label": False,
            "pipeline": config.train_pipeline,
        }
        for images, masks in (setup.failures, setup.replay)
    ]
    optimizer = {"type": "SGD", "lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    amp = (
        {"type": "AmpOptimWrapper", "dtype": "bfloat16"}
        if given.precision == "bf16"
        else {"type": "OptimWrapper"}
    )
    Runner(
        model=config.model,
        work_dir=str(folder),
        train_dataloader={
            "batch_size": setup.batch_size,
            "num_workers": 4 if torch.cuda.is_available() else 1,
            "persistent_workers": True,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {"type": "ConcatDataset", "datasets": folders},
        },
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": FOR_EVER},
        optim_wrapper={**amp, "optimizer": optimizer, "clip_grad": None},
        param_scheduler=[
            {"type": "PolyLR", "eta_min": 1e-4, "power": 0.9, "end": FOR_EVER, "by_epoch": False}
        ],
        default_hooks={
            "timer": {"type": "IterTimerHook"},
            "logger": {"type": "LoggerHook", "interval": 50, "log_metric_by_epoch": False},
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": None,
            "sampler_seed": {"type": "DistSamplerSeedHook"},
        },
        custom_hooks=[turns],
        env_cfg={
            "cudnn_benchmark": True,
            "mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0},
            "dist_cfg": {"backend": "nccl"},
        },
        log_processor={"by_epoch": False},
        default_scope="mmseg",
        experiment_name="stock",
        randomness={"seed": 0},
    ).train()


def main() -> None:
    """Runs one side; libraries' own output goes to standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=("ours", "stock"))
    parser.add_argument("setup", help="as JSON")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    given = parser.parse_args()
    tell = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    setup = Setup.load(given.setup)
    turns = TurnsHook(tell, setup.batch_size)
    with tempfile.TemporaryDirectory() as folder, suppress(EnoughError):
        (ours if given.side == "ours" else stock)(setup, turns, given, Path(folder))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
