"""Fine-tunings of networks that learn in milliseconds."""

from pathlib import Path
from typing import Any, Protocol

from mad_backend.core.grid import Grid
from mad_backend.settings import ModelSettings, TrainingSettings
from mad_backend.settings_file import load_label_set
from tests.training.conftest import CONFIGS, samples_of
from training.finetuning.job import Job


class MakeJob(Protocol):
    def __call__(self, network: str = "SmallNet", folder: str = "job", **settings: Any) -> Job:
        """Fine-tunes `network` of networks.py in batches of four; `settings` replace those of training."""


def job_maker(scenes: Path, root: Path) -> MakeJob:
    def make(network: str = "SmallNet", folder: str = "job", **settings: Any) -> Job:
        fields = {
            "recipe": "paper",
            "learning_rates": (1e-2,),
            "epochs": 3,
            "batch_size": 4,
            "threads": 1,
            "workers": 0,
            **settings,
        }
        return Job(
            version="small@1",
            started_from="small@0",
            target=ModelSettings(
                kind=f"tests.training.finetuning.networks:{network}", fit="keep", device="cpu"
            ),
            labels=load_label_set(CONFIGS / "label_sets" / "scenes.yaml"),
            grid=Grid(64),
            failures=tuple(samples_of(scenes / "pool", "hidden_masks", 6)),
            replay=tuple(samples_of(scenes / "s0", "masks", 6)),
            unlabelled=(),
            dev=tuple(samples_of(scenes / "t0", "masks", 3)),
            failures_dev=(),
            counted=None,
            settings=TrainingSettings.model_validate(fields),
            seed=7,
            folder=root / folder,
        )

    return make
