"""Batches for one run, read between steps, or ahead of them by processes beside the training."""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from training.finetuning.packing import PackedBatch, pack, unpack
from training.finetuning.samples import Draw, SampleDataset

CPU_CACHE, GPU_CACHE = 32 << 20, 1 << 30
MOST_WORKERS = 4
"""As many keep a GPU busy with a small network; more only take memory."""


@contextmanager
def batches(
    dataset: SampleDataset, sampler: Iterable[list[Draw]], device: torch.device, workers: int | None
) -> Iterator[DataLoader[Any]]:
    """A loader of collated batches in the sampler's order; its `workers` processes end with this context.

    None: see `workers_for`. What is read does not depend on the number.
    """
    if workers is None:
        workers = workers_for(device)
    loader = _Loader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=packed if workers else collate,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        # The cache of images is shared by forked processes only; none of them touches a GPU.
        multiprocessing_context="fork" if workers else None,
        # One of its own: the global one would be drawn from once an epoch, or once a run, by the number of workers.
        generator=torch.Generator(),
    )
    if workers:
        packed([dataset[Draw(0)]])  # the libraries that reading needs are loaded once for all
        # Looking for garbage writes to every object, here as in the processes that are forked, and what is written to
        # is no longer shared: 170 MB for each of them.
        gc.collect()
        gc.freeze()
    try:
        yield loader
    finally:
        gc.unfreeze()
        running = loader._iterator  # noqa: SLF001 - nothing public ends persistent workers
        if running is not None:
            running._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001
        dataset.forget()  # mmengine's Runner, which refers to itself, keeps the data set for a while


def workers_for(device: torch.device) -> int:
    """How many processes read, unless settings say so.

    For a GPU up to `MOST_WORKERS`, its part of the cores. On a CPU of two cores none: every operation of a step is
    shared by both, and waits for the one that a reader is using. Images a second with a reader and without, of
    `benchmarks.training`: scenes 44 and 52, CamVid 25 and 25, though there the training waits for 18 % of the time.
    """
    cores = len(os.sched_getaffinity(0))
    if device.type == "cpu":
        return min(1, cores // 4)
    return max(1, min(MOST_WORKERS, cores // max(1, torch.cuda.device_count()) - 1))


def cache_for(device: torch.device, given: int | None) -> int:
    """Bytes for decoded images, which a GPU and a CPU that reads between steps would wait for."""
    if given is not None:
        return given
    return CPU_CACHE if device.type == "cpu" else GPU_CACHE


class _Loader(DataLoader[Any]):
    """Gives batches as they were before a process packed them."""

    def __iter__(self) -> Any:
        read = super().__iter__()
        return map(unpack, read) if self.num_workers else read


def packed(items: list[Any]) -> PackedBatch:
    """`collate`, for another process."""
    return pack(collate(items))


def collate(items: list[Any]) -> Any:
    """As mmengine's models take them: a list of images and one of data samples."""
    from mmengine.dataset import pseudo_collate

    return pseudo_collate(items)
