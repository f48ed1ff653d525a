"""Training images: S mixed half and half with S(0), read where they lie, never copied."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.errors import TrainingError
from mad_backend.pool.images import read_label_map, read_rgb


@dataclass(frozen=True)
class Sample:
    """One training image with its label map."""

    image_id: str
    image: Path
    mask: Path


class SampleDataset:
    """A map-style dataset over S, then S(0): each item passes `transforms`, mmsegmentation's or ours.

    A sample enters the transforms as mmsegmentation's loaders would leave it: `img` (h, w, 3) uint8 BGR and
    `gt_seg_map` (h, w) uint8 on the evaluation grid, in the network's own ids by `own_ids`, 255 = void.
    """

    def __init__(self, samples: Sequence[Sample], grid: Grid, own_ids: LabelMap, transforms: Any) -> None:
        self._samples = samples
        self._own_ids = own_ids
        self._grid = grid
        self._transforms = transforms

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self._samples[index]
        rgb = read_rgb(sample.image)
        mask = read_label_map(sample.mask)
        if mask.shape != rgb.shape[:2]:
            raise TrainingError(
                f"{sample.mask} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {sample.image} "
                f"{rgb.shape[1]} x {rgb.shape[0]}"
            )
        image = np.ascontiguousarray(self._grid.image(rgb)[:, :, ::-1])
        shape = image.shape[:2]
        loaded = {
            "img": image,
            "gt_seg_map": self._own_ids[self._grid.label_map(mask)],
            "img_path": str(sample.image),
            "seg_map_path": str(sample.mask),
            "img_shape": shape,
            "ori_shape": shape,
            "seg_fields": ["gt_seg_map"],
            "reduce_zero_label": False,
        }
        transformed: dict[str, Any] = self._transforms(loaded)
        return transformed


class ReplaySampler:
    """Batches of indices, half from S and half from S(0); an epoch is one pass over S (method.md section 6).

    Indices 0..failures-1 are S, the rest S(0). The order depends on (seed, epoch) alone, so that a resumed run
    sees what an undisturbed one would have seen.
    """

    def __init__(self, failures: int, replay: int, batch_size: int, seed: int) -> None:
        if failures == 0 or replay == 0:
            raise TrainingError(f"fine-tuning needs images in S and in S(0); got {failures} and {replay}")
        self._failures, self._replay = failures, replay
        self._half = batch_size // 2
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self._failures / self._half)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self._seed, self.epoch))
        steps = len(self)
        own = np.resize(rng.permutation(self._failures), steps * self._half)
        # Without replacement while S(0) lasts, so that one epoch replays as many different images as it can.
        passes = math.ceil(steps * self._half / self._replay)
        old = np.concatenate([rng.permutation(self._replay) for _ in range(passes)]) + self._failures
        for step in range(steps):
            part = slice(step * self._half, (step + 1) * self._half)
            yield [*own[part].tolist(), *old[part].tolist()]
