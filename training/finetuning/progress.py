"""How far fine-tuning has come: of one run, from one process to another, and in words."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from training.finetuning.files import write_json

INTERVAL_S = 0.5
"""Files and databases are told no more often."""


@dataclass(frozen=True)
class Progress:
    """Of one run; `dev` is the last finished epoch's dev mIoU, `best` the highest so far, None before the first."""

    learning_rate: float
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None = None
    dev: float | None = None
    best: float | None = None

    def __str__(self) -> str:
        parts = [f"epoch {self.epoch} of {self.epochs}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.dev is not None and self.best is not None:
            parts.append(f"dev mIoU {self.dev:.4f}, best {self.best:.4f}")
        return ", ".join(parts)


Report = Callable[[str, int, int], None]
"""(what is done, steps done, steps in all)."""


class Meter:
    """Of a whole grid: adds up runs, and tells the time that is left by the steps since it was made.

    `epochs` by learning rate: all runs take as many steps an epoch.
    """

    def __init__(
        self, report: Report, epochs: Mapping[float, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._epochs = epochs
        self._clock = clock
        self._first: dict[float, tuple[int, float]] = {}
        self._runs: dict[float, Progress] = {}
        self._over: set[float] = set()

    def __call__(self, progress: Progress) -> None:
        self._first.setdefault(progress.learning_rate, (progress.step - 1, self._clock()))
        self._runs[progress.learning_rate] = progress
        self._tell()

    def finish(self, learning_rate: float) -> None:
        """Counts a run as over, whether or not it used all its steps."""
        self._over.add(learning_rate)

    def _tell(self) -> None:
        running = [run for rate, run in sorted(self._runs.items()) if rate not in self._over]
        if not running:
            return
        an_epoch = running[0].steps // running[0].epochs
        total = an_epoch * sum(self._epochs.values())
        over = an_epoch * sum(self._epochs[rate] for rate in self._over)
        done = over + sum(run.step for run in running)
        note = "; ".join(f"at {run.learning_rate:g} {run}" for run in running)
        left = self._left(total - done)
        self._report(
            f"fine-tuning {note} ({len(self._over)} of {len(self._epochs)} rates done{left})", done, total
        )

    def _left(self, steps: int) -> str:
        own = sum(run.step - self._first[rate][0] for rate, run in self._runs.items())
        spent = self._clock() - min(begin for _, begin in self._first.values())
        # The first step takes longer than others, and one step has no duration to go by.
        return f", {duration(steps * spent / (own - 1))} left" if own > 1 and spent > 0 else ""


class ProgressFile:
    """Where a process that trains tells the one that started it how far it is; twice a second at most."""

    NAME = "progress.json"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME
        self._told = 0.0

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.step == progress.steps or now - self._told >= INTERVAL_S:
            self._told = now
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, asdict(progress))

    def read(self) -> Progress | None:
        try:
            return Progress(**json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def duration(seconds: float) -> str:
    """In the two units that matter: 45 s, 12 min, 3 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
