"""What a trial leaves behind: its choices round by round as JSON, and the confusion matrices it was measured by."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from mad_backend.errors import CorruptFileError
from training.finetuning.files import write_bytes

OPEN = "W"
"""The name of the images that were drawn from the pool at random."""
TRIAL = "trial.json"
MATRICES = "matrices.npz"


@dataclass(frozen=True)
class RoundRecord:
    """One round of one trial: what was chosen, what it cost in simulated seconds, and which version came of it.

    `selected` is |M|, `ratings` those that the strategy asked for; `failures` is S, `test_set` T, in their order.
    """

    number: int
    started_from: str
    version: str
    selected: int
    test_set: tuple[str, ...]
    failures: tuple[str, ...]
    ratings: int
    rating_s: float
    mask_s: float


@dataclass(frozen=True)
class TrialRecord:
    """A whole trial; `fingerprint` stands for settings, models, images and strategy. `sets` are image ids by name.

    `paths`, `sets` and the seconds of `compute_s` may be those of more rounds than `rounds` tells of.
    """

    strategy: str
    seed: int
    fingerprint: str
    target: str
    competing: tuple[str, ...]
    rounds: tuple[RoundRecord, ...]
    paths: Mapping[str, str | None]
    """Version -> what `models.target.path` must be to load it; None: as settings say."""
    sets: Mapping[str, tuple[str, ...]]
    compute_s: float

    @property
    def versions(self) -> list[str]:
        """f(0), f(1), ..."""
        return [self.target, *(r.version for r in self.rounds)]

    def labels(self, number: int) -> int:
        """Label maps of S that f(number) has learnt."""
        return sum(len(r.failures) for r in self.rounds[:number])

    def hours(self, number: int) -> float:
        """Simulated hours of people behind f(number): ratings and the label maps of S."""
        return sum(r.rating_s + r.mask_s for r in self.rounds[:number]) / 3600


@dataclass(frozen=True)
class Trial:
    """A finished trial with its confusion matrices (n, C, C + 1) by (model, image set)."""

    record: TrialRecord
    matrices: Mapping[tuple[str, str], NDArray[np.int64]]

    def write(self, folder: Path) -> None:
        """Matrices first: whoever finds the record finds all of it."""
        content = io.BytesIO()
        arrays: dict[str, Any] = {
            f"{model}|{image_set}": m for (model, image_set), m in self.matrices.items()
        }
        np.savez_compressed(content, **arrays)
        write_bytes(folder / MATRICES, content.getvalue())
        write_bytes(folder / TRIAL, _TRIAL.dump_json(self.record, indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Trial | None":
        """What `write` left; None where the trial is not finished. Raises CorruptFileError."""
        if not (folder / TRIAL).exists():
            return None
        try:
            record = _TRIAL.validate_json((folder / TRIAL).read_bytes())
            with np.load(io.BytesIO((folder / MATRICES).read_bytes()), allow_pickle=False) as kept:
                matrices = {tuple(name.split("|", 1)): kept[name] for name in kept.files}
        except (ValueError, OSError, BadZipFile) as error:
            raise CorruptFileError(
                f"{folder} does not hold a trial that can be read ({error}); remove it, `mad simulate` makes it anew"
            ) from error
        return cls(record, {(model, name): m for (model, name), m in matrices.items()})

    @classmethod
    def finished(cls, folder: Path, fingerprint: str, rounds: int) -> "Trial | None":
        """The first `rounds` rounds of what is in `folder`, if that is a trial of this fingerprint with so many."""
        found = cls.read(folder)
        if not found or found.record.fingerprint != fingerprint or len(found.record.rounds) < rounds:
            return None
        return cls(replace(found.record, rounds=found.record.rounds[:rounds]), found.matrices)


_TRIAL = TypeAdapter(TrialRecord)
ROUND = TypeAdapter(RoundRecord)
