"""What one fine-tuning run is given, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mad_backend.core.grid import Grid
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings
from training.finetuning.dev import DevScore
from training.finetuning.progress import Progress
from training.finetuning.samples import Sample


@dataclass(frozen=True)
class GivenUp:
    """Why a run need not go on: it is worse than the one at the learning rate `beside` beyond doubt."""

    beside: float
    reason: str


Hopeless = Callable[[int, DevScore], GivenUp | None]
"""(epoch, its dev score) -> why the run cannot be chosen any more, None while it can."""


@dataclass(frozen=True)
class EpochRecord:
    """One point of the learning curve; `dev` is what epochs are compared by: see `DevScore`."""

    epoch: int
    loss: float
    dev: float
    benchmark: float
    failures: float | None = None


@dataclass(frozen=True)
class RunResult:
    """A finished run: its learning curve, its best epoch, and where that epoch's weights lie.

    `parts`: in how many parts a batch passed the network, for lack of memory. `stopped`: why it ended before its time.
    `start`: the dev score of f(i-1). `share`: of the best epoch's weights in what was chosen, the rest f(i-1)'s, where
    `best` has the dev score of that mixture; None without interpolation. `given_up_beside`: see `GivenUp`.
    """

    learning_rate: float
    best: EpochRecord
    curve: tuple[EpochRecord, ...]
    folder: Path
    parts: int = 1
    stopped: str | None = None
    start: DevScore | None = None
    share: float | None = None
    given_up_beside: float | None = None

    @property
    def is_better(self) -> bool:
        """Whether the dev set rates the chosen weights higher than f(i-1); False as well where that is not known."""
        return self.start is not None and self.best.dev > self.start.value


@dataclass(frozen=True)
class FailedRun:
    """A run that ended, for the reason `stopped`, before an epoch of it could be measured."""

    learning_rate: float
    folder: Path
    stopped: str


@dataclass(frozen=True)
class RunPlan:
    """What one run needs beside the model; `progress` is told of every step.

    `unlabelled`: images of the pool that f(i-1) answers, for distillation, and `teachers` beside it; `answers` is a
    folder for what they answer, None: they are asked each time. `measure` is asked of f(i-1), after each epoch, and of
    each mixture; `hopeless`, of an epoch and its dev score, says why the run need not go on, or None.
    """

    failures: Sequence[Sample]
    replay: Sequence[Sample]
    grid: Grid
    settings: TrainingSettings
    seed: int
    measure: Callable[[TorchModel], DevScore]
    progress: Callable[[Progress], None]
    unlabelled: Sequence[Path] = ()
    teachers: Sequence[TorchModel] = ()
    answers: Path | None = None
    hopeless: Hopeless | None = None
