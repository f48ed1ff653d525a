"""Everything one fine-tuning needs, as plain data: what a process on any machine of the team is given as a file."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import TrainingError
from mad_backend.models.registry import TRAINABLE, load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import ModelSettings, TrainingSettings
from training.finetuning.dev import DevSet
from training.finetuning.files import write_bytes
from training.finetuning.samples import Sample

log = logging.getLogger(__name__)

ANSWERS = "answers"
"""Folder of what teachers answered."""


@dataclass(frozen=True)
class Job:
    """A fine-tuning of `target`, which is f(i-1) under the name `started_from`, to `version`.

    `failures` is what is learnt of S(1) u ... u S(i), `replay` S(0), `unlabelled` images of the pool for distillation,
    in which `teachers` answer beside f(i-1); `dev` (of T(0)) and `failures_dev` (of S) choose. `counted`: ids over
    which mIoU is averaged, None: all present.
    Results go to `folder`, teachers' answers to `answers`, which many fine-tunings may share (None: to `folder`, until
    it is over).
    """

    version: str
    started_from: str
    target: ModelSettings
    labels: LabelSet
    grid: Grid
    failures: tuple[Sample, ...]
    replay: tuple[Sample, ...]
    unlabelled: tuple[Path, ...]
    dev: tuple[Sample, ...]
    failures_dev: tuple[Sample, ...]
    counted: tuple[int, ...] | None
    settings: TrainingSettings
    seed: int
    folder: Path
    teachers: Mapping[str, ModelSettings] = field(default_factory=dict)
    answers: Path | None = None

    def load_teachers(self, device: str | None = None) -> list[TorchModel]:
        """Competing models that answer beside f(i-1).

        Where settings take all of them, those that give no probabilities or lack a class are left out; else raises
        TrainingError for one that gives none.
        """
        takes_all = self.settings.distillation.teachers == "all"
        needed = self.start("cpu").class_ids if takes_all and self.teachers else set()
        models = [load_model(name, s, self.labels, self.grid, device) for name, s in self.teachers.items()]
        found = []
        for model in models:
            if isinstance(model, TorchModel) and needed <= model.class_ids:
                found.append(model)
            elif takes_all:
                log.info('the model "%s" is no teacher: it lacks probabilities, or a class', model.name)
            else:
                raise TrainingError(
                    f'the model "{model.name}" cannot teach the target: kind "{model.settings.kind}" gives classes, '
                    "not probabilities; leave it out of training.distillation.teachers"
                )
        return found

    def start(self, device: str | None = None) -> TorchModel:
        """f(i-1), freshly loaded; raises TrainingError for a kind that cannot be trained."""
        model = load_model(self.started_from, self.target, self.labels, self.grid, device)
        if not isinstance(model, TorchModel):
            raise TrainingError(
                f'the target "{model.name}" is of kind "{self.target.kind}", which cannot be fine-tuned; wanted '
                f'{", ".join(sorted(TRAINABLE))}, or "package.module:Class" of a torch.nn.Module of your own'
            )
        return model

    def dev_set(self) -> DevSet:
        return DevSet(self.dev, self.failures_dev, self.grid, len(self.labels), self.counted)

    def write(self) -> Path:
        """Writes the job into its folder, whole or not at all; returns the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "job.json"
        write_bytes(path, _JOB.dump_json(self, indent=1))
        return path

    @classmethod
    def read(cls, path: Path) -> "Job":
        return _JOB.validate_json(path.read_bytes())


_JOB = TypeAdapter(Job)
