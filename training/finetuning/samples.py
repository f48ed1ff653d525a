"""Training images: S mixed half and half with S(0), read where they lie, never copied."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelMap, RgbImage
from mad_backend.core.records import PoolImage
from mad_backend.errors import TrainingError
from mad_backend.pool.files import read_bytes
from mad_backend.pool.images import decode_frame
from mad_backend.pool.truths import Truth
from training.finetuning.image_cache import ImageCache
from training.finetuning.randomness import drawn_from


@dataclass(frozen=True)
class Sample:
    """One training image, in a file of this machine, with its human label map."""

    image_id: str
    image: Path
    truth: Truth


@dataclass(frozen=True)
class Unlabelled:
    """An image that only the teacher answers; its label map is void throughout."""

    image: Path


class Part(StrEnum):
    """What an image of a batch is there for; the network's data samples tell it as `part`."""

    FAILURES = "failures"
    REPLAY = "replay"
    POOL = "pool"


class Draw(NamedTuple):
    """One place in a batch: which sample, the seed of its augmentation, and what it is there for."""

    sample: int
    seed: int = 0
    part: Part = Part.FAILURES


class SampleDataset:
    """A map-style dataset over S, S(0) and unlabelled images: each item passes `transforms`, mmsegmentation's or ours.

    A sample enters the transforms as mmsegmentation's loaders would leave it: `img` (h, w, 3) uint8 BGR and
    `gt_seg_map` (h, w) uint8 on the evaluation grid, as models see it, in the network's own ids by `own_ids`,
    255 = void. What a draw becomes depends on nothing else, so that any process may read it. Decoded samples are kept
    in up to `cache_bytes` of memory, which processes forked from this one share.
    """

    def __init__(
        self,
        samples: Sequence[Sample | Unlabelled],
        grid: Grid,
        own_ids: LabelMap,
        transforms: Any,
        cache_bytes: int = 0,
    ) -> None:
        self._samples = samples
        self._own_ids = own_ids
        self._grid = grid
        self._transforms = transforms
        self._cache = ImageCache(len(samples), cache_bytes) if cache_bytes else None

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        sample = self._samples[draw.sample]
        image, label_map = self._decoded(draw.sample)
        shape = label_map.shape
        loaded = {
            "img": image,
            "gt_seg_map": label_map,
            "img_path": str(sample.image),
            "seg_map_path": str(sample.truth.path) if isinstance(sample, Sample) else None,
            "img_shape": shape,
            "ori_shape": shape,
            "seg_fields": ["gt_seg_map"],
            "reduce_zero_label": False,
        }
        with drawn_from(draw.seed):
            transformed: dict[str, Any] = self._transforms(loaded)
        if "data_samples" in transformed:
            transformed["data_samples"].set_metainfo({"part": draw.part})
        return transformed

    def forget(self) -> None:
        """Gives the memory of decoded samples back."""
        self._cache = None

    def _decoded(self, index: int) -> tuple[RgbImage, LabelMap]:
        """(h, w, 3) BGR and (h, w) own ids on the grid, both of which the caller may write to."""
        kept = self._cache.get(index) if self._cache else None
        if kept:
            return kept
        sample = self._samples[index]
        image_id = sample.image_id if isinstance(sample, Sample) else sample.image.name
        picture = PoolImage(image_id, str(sample.image))
        frame = decode_frame(picture, read_bytes(sample.image), self._grid)
        mask = sample.truth.read() if isinstance(sample, Sample) else np.full(frame.size, VOID, np.uint8)
        if isinstance(sample, Sample) and mask.shape != frame.size:
            raise TrainingError(
                f"{sample.truth.path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {sample.image} "
                f"{frame.size[1]} x {frame.size[0]}"
            )
        image = np.ascontiguousarray(frame.rgb[:, :, ::-1])
        label_map = self._own_ids[self._grid.label_map(mask)]
        # Images of the pool are many and seldom come twice.
        if self._cache and isinstance(sample, Sample):
            self._cache.put(index, image, label_map)
        return image, label_map


class ReplaySampler:
    """Batches of draws, part from S and part from S(0); an epoch is one pass over S (method.md section 6).

    Indices 0..failures-1 are S, then come `replay` of S(0), then `unlabelled` images of the pool, of which each batch
    has `extra` more than `batch_size`. Order and augmentation depend on (seed, epoch) alone, so that a resumed
    run sees what an undisturbed one would have seen.
    """

    def __init__(
        self,
        failures: int,
        replay: int,
        batch_size: int,
        seed: int,
        replay_share: float = 0.5,
        *,
        unlabelled: int = 0,
        extra: int = 0,
    ) -> None:
        if failures == 0 or replay == 0:
            raise TrainingError(f"fine-tuning needs images in S and in S(0); got {failures} and {replay}")
        self._failures, self._replay = failures, replay
        # At least one of each, whatever the share rounds to.
        self._old = min(max(round(batch_size * replay_share), 1), batch_size - 1)
        self._new = batch_size - self._old
        self._unlabelled, self._extra = unlabelled, extra if unlabelled else 0
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self._failures / self._new)

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng((self._seed, self.epoch))
        steps = len(self)
        own = np.resize(rng.permutation(self._failures), steps * self._new)
        # Without replacement while S(0) lasts, so that one epoch replays as many different images as it can.
        old = _drawn(rng, self._replay, steps * self._old) + self._failures
        seeds = rng.integers(2**32, size=(steps, self._new + self._old))
        # Last, so that what is learnt is the same with and without a teacher.
        pool = _drawn(rng, self._unlabelled, steps * self._extra) + self._failures + self._replay
        pool_seeds = rng.integers(2**32, size=(steps, self._extra))
        parts = [Part.FAILURES] * self._new + [Part.REPLAY] * self._old + [Part.POOL] * self._extra
        indices = np.hstack([part.reshape(steps, -1) for part in (own, old, pool)]).tolist()
        for step, of_batch in enumerate(np.hstack([seeds, pool_seeds]).tolist()):
            yield [Draw(*both) for both in zip(indices[step], of_batch, parts, strict=True)]


def _drawn(rng: np.random.Generator, count: int, wanted: int) -> NDArray[np.int64]:
    """`wanted` of 0..count-1, without replacement while they last."""
    passes = [rng.permutation(count) for _ in range(math.ceil(wanted / count))] if wanted else []
    return np.concatenate([np.empty(0, np.int64), *passes])[:wanted]
