"""`mad serve` beside the bare model and beside a backend with the SDK's brush masks: real photos, a real network."""

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.figure import DATA, print_absent, print_figure
from benchmarks.served_target import LABELS, NETWORK, VOC, Client, Project, mad_serve, project, served
from mad_backend.core.grid import Grid
from mad_backend.core.records import Frame, PoolImage
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import load_model
from mad_backend.pool.images import decode_frame
from mad_backend.settings_file import load_settings

SDK = next(
    (Path(__file__).parents[1] / ".venv-label-studio" / "lib").glob("python*/site-packages/label_studio_sdk"),
    None,
)
OVERHEAD_MS, POOL_RATE, QUICK_MS = 15.0, 100.0, 50.0
CLIENTS, BATCH, LONG = 16, 16, 300
SMALL = (128, 96)
"""Photos of the long run: ten thousand forward passes of large ones take a quarter of an hour."""
WANTED = "wanted"


def main() -> None:
    """By the clock. One thread for each process's arithmetic; the first two figures on one core."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=100, help="of one request each, for the overhead")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load by many clients")
    parser.add_argument("--requests", type=int, default=10_000, help="of the long run")
    given = parser.parse_args()
    if not (VOC.is_dir() and NETWORK.is_dir()):
        print_absent("ML backend", DATA)
        return
    import torch

    torch.set_num_threads(1)
    with project(given.photos, BATCH) as there:
        model = load_model("bare", load_settings(there.config).models.target, LABELS, Grid())
        frames = [_frame(there.root / "others" / f"{stem}.jpg") for stem in there.stems]
        with one_core():
            overhead(there, model, frames)
            pool_images(there)
        clients(there, model, frames, given.seconds)
    with project(min(given.photos, 50), BATCH, SMALL) as there:
        memory(there, given.requests)


def overhead(there: Project, model: SegmentationModel, frames: Sequence[Frame]) -> None:
    """One task a request, one request after another; nothing is kept from one to the next."""
    tasks = there.photo_tasks(there.stems)
    bare_ms = 1000 * statistics.median(
        seconds(lambda frame=frame: model.predict([frame])) for frame in frames
    )
    name = f"overhead of a request over the bare model ({bare_ms:.1f} ms), one photo of 500 x 375 on one core"
    ours_ms = whole_ms(mad_serve(there), tasks) - bare_ms
    print_figure(name, "ms", ours_ms, OVERHEAD_MS, WANTED, 1.0, less_is_better=True)
    if SDK is None:
        print_absent(f"{name}, beside the SDK", Path("Label Studio's own environment"))
        return
    command = [sys.executable, "-m", "benchmarks.sdk_backend", there.config, SDK]
    peer_ms = whole_ms(command, tasks) - bare_ms
    peer = "a backend in the way of LabelStudioMLBase with the SDK's mask2rle"
    print_figure(name, "ms", ours_ms, peer_ms, peer, 1.0, less_is_better=True)


def whole_ms(command: Sequence[Any], tasks: Sequence[dict[str, Any]]) -> float:
    """Median of what a client waits for the answer to one task."""
    with served(command) as (port, _), Client(port) as client:
        for task in tasks[:5]:
            client.predict([task])
        return 1000 * statistics.median(seconds(lambda task=task: client.predict([task])) for task in tasks)


def pool_images(there: Project) -> None:
    """Tasks that we pushed, whose label maps a scan has stored; in requests of the size that people select."""
    tasks = (there.pool_tasks() * LONG)[:LONG]
    some = there.pool_tasks()
    with served(mad_serve(there)) as (port, _), Client(port) as client:
        client.predict(some)
        rate = len(some) / statistics.median(seconds(lambda: client.predict(some)) for _ in range(5))
        assert client.predict(tasks) == len(tasks)
    print_figure("tasks of pool images on one core", "tasks/s", rate, POOL_RATE, WANTED, 1.0)


def clients(there: Project, model: SegmentationModel, frames: Sequence[Frame], for_s: float) -> None:
    """Many at once, each of whom asks again as soon as it is answered."""
    batch = (list(frames) * BATCH)[:BATCH]
    model.predict(batch)
    batch_s = statistics.median(seconds(lambda: model.predict(batch)) for _ in range(3))
    tasks = there.photo_tasks(there.stems)
    # What is quick is asked by a process of its own, which does not wait for this one's threads.
    with (
        served(mad_serve(there)) as (port, _),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as another,
    ):
        with Client(port) as client:
            client.predict(tasks[:BATCH])
        quick = another.submit(ask_quick, port, 2 * for_s)
        found = load(port, tasks, [1] * CLIENTS, for_s)
        beside = load(port, tasks, [LONG] + [1] * (CLIENTS - 1), for_s)
        times_s = quick.result()
    name = f"{CLIENTS} clients at once"
    waits = np.concatenate([client.waits_s for client in found])
    p99_s = float(np.quantile(waits, 0.99))
    told = f"{name}, p99 beside the time of a batch of {BATCH} photos ({len(waits)} answers)"
    print_figure(told, "s", p99_s, batch_s, "one batch", 3.0, less_is_better=True)
    answers = sum(len(client.waits_s) for client in (*found, *beside))
    errors = sum(client.errors for client in (*found, *beside))
    print_figure(f"{name}, requests answered", "requests", answers, answers + errors, "all of them", 1.0)
    counts = [len(client.waits_s) for client in found]
    told = f"{name}, fewest answers of a client beside the most"
    print_figure(told, "answers", min(counts), max(1, *counts), "the most", 0.5)
    counts = [len(client.waits_s) for client in beside[1:]]
    told = f"{CLIENTS - 1} clients beside one with {LONG} tasks, fewest answers of a client beside the most"
    print_figure(told, "answers", min(counts), max(1, *counts), "the most", 0.5)
    waits = np.concatenate([client.waits_s for client in beside[1:]])
    told = f"{CLIENTS - 1} clients beside one with {LONG} tasks, p99 beside the time of a batch of {BATCH} photos"
    print_figure(told, "s", float(np.quantile(waits, 0.99)), batch_s, "one batch", 3.0, less_is_better=True)
    for path, times in times_s.items():
        for kind, ms in (("median", 1000 * statistics.median(times)), ("longest", 1000 * max(times))):
            told = f"{path} while the model is busy, {kind} of {len(times)}"
            print_figure(told, "ms", ms, QUICK_MS, WANTED, 1.0, less_is_better=True)


class Load:
    """What one client waited for each answer, in seconds, and how many requests failed."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []
        self.errors = 0


def load(port: int, tasks: Sequence[dict[str, Any]], sizes: Sequence[int], for_s: float) -> list[Load]:
    """Clients whose requests have so many tasks, for so long and until the last answer."""
    until = time.perf_counter() + for_s

    def ask(number: int) -> Load:
        found, size = Load(), sizes[number]
        some = (list(tasks[number:]) + list(tasks)) * (1 + size // len(tasks))
        with Client(port) as client:
            while time.perf_counter() < until:
                some = some[size:] + some[:size]
                began = time.perf_counter()
                try:
                    client.predict(some[:size])
                    found.waits_s.append(time.perf_counter() - began)
                except (AssertionError, OSError):
                    found.errors += 1
        return found

    with ThreadPoolExecutor(len(sizes)) as threads:
        return list(threads.map(ask, range(len(sizes))))


def ask_quick(port: int, for_s: float) -> dict[str, list[float]]:
    """How long what Label Studio asks before everything takes, in seconds; asked ten times a second."""
    times_s: dict[str, list[float]] = {"/health": [], "/setup": []}
    until = time.perf_counter() + for_s
    with Client(port) as client:
        while time.perf_counter() < until:
            for path, method, body in (("/health", "GET", None), ("/setup", "POST", {"project": "1.1"})):
                began = time.perf_counter()
                status, _ = client.ask(method, path, body)
                assert status == 200
                times_s[path].append(time.perf_counter() - began)
            time.sleep(0.1)
    return times_s


def memory(there: Project, requests: int) -> None:
    """Of all processes of `mad serve`, after a tenth of the requests and after all, each run by the model."""
    tasks = there.photo_tasks(there.stems)
    with served(mad_serve(there)) as (port, process), ThreadPoolExecutor(CLIENTS) as threads:
        local = threading.local()

        def ask(n: int) -> None:
            if not hasattr(local, "client"):
                local.client = Client(port)
            local.client.predict([tasks[n % len(tasks)]])

        list(threads.map(ask, range(requests // 10)))
        early = resident_mb(process)
        list(threads.map(ask, range(requests // 10, requests)))
        late = resident_mb(process)
    name = f"resident memory after {requests:,} requests beside that after {requests // 10:,}"
    print_figure(name, "MB", late, early, "before", 1.05, less_is_better=True)


def resident_mb(process: psutil.Process) -> float:
    """Of a process and all that it has started."""
    return float(sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))) / 1e6


class one_core:  # noqa: N801 - reads as what it is
    """This process, and those it starts meanwhile, run on one core."""

    def __enter__(self) -> None:
        self._before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._before)})

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._before)


def seconds(work: Callable[[], object]) -> float:
    """By the clock, once."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _frame(path: Path) -> Frame:
    return decode_frame(PoolImage(path.stem, str(path)), path.read_bytes(), Grid())


if __name__ == "__main__":
    main()
