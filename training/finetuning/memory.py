"""Running out of memory: batches are learnt in more, smaller parts, for the rest of the grid."""

import gc
import json
import logging
from pathlib import Path

import torch

from mad_backend.errors import TrainingError
from training.finetuning.files import write_json
from training.finetuning.ranks import world
from training.finetuning.samples import ReplaySampler

log = logging.getLogger(__name__)

TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
"""How PyTorch's allocators and libraries say it, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """True for a CUDA device, and for the CPU, that has no room for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in TEXTS)
    )


class TryAgainError(Exception):
    """Raised in one of several processes when memory ran out: all have to end, and start again with smaller parts."""


def smallest_share(sampler: ReplaySampler, *, batch_norm_frozen: bool) -> int:
    """Into how many parts a process's images of a batch may be cut: one image each, two where batch norm learns.

    Raises TrainingError for more processes than images in a batch.
    """
    batch = len(next(iter(sampler)))
    if batch < world():
        raise TrainingError(
            f"training.batch_size {batch} is less than the {world()} processes of training.launcher; each needs an "
            "image"
        )
    images = batch // world()
    return images if batch_norm_frozen else max(1, images // 2)


class Parts:
    """In how many parts the images that a process has of a batch pass the network: 1, until memory does not suffice.

    What was found out holds for the rest of the grid, and for a run that goes on after a kill.
    """

    def __init__(self, grid_folder: Path) -> None:
        self._file = grid_folder / "memory.json"

    @property
    def number(self) -> int:
        if not self._file.exists():
            return 1
        return int(json.loads(self._file.read_text(encoding="utf-8"))["parts"])

    def double(self, used: int, images: int, told: str) -> None:
        """For what comes, after `used` parts did not fit; raises TrainingError when there are `images` of them."""
        if used >= images:
            raise TrainingError(
                f"memory does not suffice for one training image at a time ({told.splitlines()[0][:300]}); lower "
                "training.crop or grid.size, set training.precision: bf16, or use a device with more memory"
            )
        parts = min(2 * used, images)
        log.warning(
            "out of memory with %d images at once; from the last finished epoch on, batches are learnt in %d parts: %s",
            -(-images // used),
            parts,
            told.splitlines()[0][:200],
        )
        write_json(self._file, {"parts": parts})
        if world() > 1:
            raise TryAgainError(told)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
