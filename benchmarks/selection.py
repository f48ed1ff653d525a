"""M from a million images x 5 competitors x 2 roles x 20 classes, beside DuckDB and polars on the same Parquet files.

`--images N` takes another pool. Every measurement runs in a process of its own, after imports, on files that are in the
page cache, with all cores. All must choose the same images.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.figure import print_figure
from mad_backend.competition import StoredPair
from mad_backend.core.id_column import IdColumn
from mad_backend.core.records import Role
from mad_backend.core.scores import ClassAreas, PairScores
from mad_backend.core.selection import Window, select
from mad_backend.pool.scores import ScoreStore

CLASSES, COMPETITORS, N3, SIDE = 20, 5, 25, 513
BLOCK = 1 << 16
Chosen = dict[str, list[str]]
"""Cell ("g0 7 target") -> ids of the chosen images."""


def main() -> None:
    """Draws the pool, lets everybody choose, and compares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1_000_000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        whole, tenth = Path(name) / "whole", Path(name) / "tenth"
        write_pool(whole, images)
        write_pool(tenth, images // 10)
        found = measure_all(("ours", "reading", "DuckDB", "polars"), whole)
        mine, bound = found["ours"], found["reading"]
        what = f"M from {images:,} images x {COMPETITORS} competitors x 2 roles x {CLASSES} classes"
        for peer in ("DuckDB", "polars"):
            if found[peer].chosen != mine.chosen:
                raise AssertionError(f"{peer} chose other images")
            wall, cpu = found[peer].wall_s, found[peer].cpu_s
            print_figure(what, "s", mine.wall_s, wall, peer, 1.0, bound.wall_s, less_is_better=True)
            print_figure(what, "s of CPU time", mine.cpu_s, cpu, peer, 1.0, bound.cpu_s, less_is_better=True)
        print_figure(what, "s", mine.wall_s, 5.0, "the limit", 1.0, bound.wall_s, less_is_better=True)
        memory = f"peak resident memory for {images:,} images"
        print_figure(memory, "MiB", mine.peak_mib, 1536.0, "the limit", 1.0, less_is_better=True)
        small = measure("ours", tenth)
        less = f"for {images // 10:,} images"
        print_figure(memory, "MiB", mine.peak_mib, small.peak_mib, less, 1.1, less_is_better=True)


def write_pool(root: Path, images: int) -> None:
    """Scores of a drawn pool: 3-6 classes an image, few of them often, areas skewed, no two d equal."""
    store = ScoreStore(root)
    for start in range(0, images, BLOCK):
        count = min(BLOCK, images - start)
        rng = np.random.default_rng(start)
        target = draw_areas(rng, count)
        for competitor in range(COMPETITORS):
            store.append("f", f"g{competitor}", draw_scores(rng, start, target, draw_areas(rng, count)))


def draw_scores(
    rng: np.random.Generator, start: int, target: ClassAreas, competitor: ClassAreas
) -> PairScores:
    """Of images start, start + 1, ..."""
    count = len(target.offsets) - 1
    digits = np.arange(start, start + count)[:, None] // 10 ** np.arange(7, -1, -1) % 10 + ord("0")
    text = np.empty((count, 12), np.uint8)
    text[:, :4], text[:, 4:] = np.frombuffer(b"web/", np.uint8), digits
    ids = IdColumn(np.arange(0, 12 * count + 1, 12, dtype=np.int32), text.ravel())
    digests, looks = rng.integers(0, 2**64, (2, count), np.uint64)
    pixels = np.full(count, SIDE * SIDE, np.uint32)
    return PairScores(
        ids, digests, looks, pixels, rng.beta(2, 6, count), rng.beta(2, 8, count), target, competitor
    )


def draw_areas(rng: np.random.Generator, count: int) -> ClassAreas:
    """Background and 2-5 of 20 classes, the first ones more often (without replacement, by Gumbel's trick)."""
    liking = rng.gumbel(size=(count, CLASSES)).astype(np.float32) - 0.15 * np.arange(
        CLASSES, dtype=np.float32
    )
    best = np.argpartition(-liking, 5, axis=1)[:, :5] + 1
    best[np.arange(5) >= rng.integers(2, 6, (count, 1))] = CLASSES + 1
    classes = np.concatenate([np.zeros((count, 1), np.int64), np.sort(best, axis=1)], axis=1)
    is_there = classes <= CLASSES
    weights = np.where(is_there, rng.lognormal(0, 1.5, classes.shape), 0)
    weights[:, 0] *= 4
    pixels = np.maximum(weights / weights.sum(1, keepdims=True) * SIDE * SIDE, 1).astype(np.uint32)
    offsets = np.concatenate([[0], np.cumsum(is_there.sum(1))]).astype(np.int32)
    return ClassAreas(offsets, classes[is_there].astype(np.uint8), pixels[is_there])


@cache
def windows() -> dict[int, Window]:
    """Quartiles of the area of every class, as training images would give them."""
    areas = draw_areas(np.random.default_rng(7), 20_000)
    shares = areas.pixels / (SIDE * SIDE)
    quartiles = {k: np.quantile(shares[areas.class_ids == k], (0.25, 0.75)) for k in range(1, CLASSES + 1)}
    return {k: Window(float(low), float(high), 100) for k, (low, high) in quartiles.items()}


@dataclass(frozen=True)
class Measured:
    """What one process needed, and what it chose."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    chosen: Chosen


def measure_all(names: Sequence[str], root: Path) -> dict[str, Measured]:
    """The fastest of three runs of each, in turn: another process may slow any of them down, none makes one faster."""
    runs = [{name: measure(name, root) for name in names} for _ in range(3)]
    return {name: min((run[name] for run in runs), key=lambda m: m.wall_s) for name in names}


def measure(who: str, root: Path) -> Measured:
    """One process that does nothing else."""
    command = [sys.executable, "-c", f"from benchmarks.selection import work; work({who!r}, {str(root)!r})"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def work(who: str, root: str) -> None:
    """What `measure` runs."""
    ways: dict[str, Callable[[Path], Chosen]] = {
        "ours": ours, "reading": reading, "DuckDB": duckdb, "polars": polars,
    }  # fmt: skip
    ways[who](Path(root) / "nothing")  # imports, and loads compiled code
    wall, cpu = time.perf_counter(), time.process_time()
    chosen = ways[who](Path(root))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sys.stdout.write(json.dumps(asdict(Measured(wall, cpu, peak_mib(), chosen))))


def peak_mib() -> float:
    """Of this process alone: getrusage (and so /usr/bin/time) counts what its parent had when it was started, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def ours(root: Path) -> Chosen:
    """As a round does it."""
    store = ScoreStore(root)
    found = select({f"g{n}": StoredPair(store, "f", f"g{n}") for n in range(COMPETITORS)}, windows(), N3)
    chosen: Chosen = {}
    for candidate in found.candidates:
        for p in candidate.provenance:
            chosen.setdefault(f"{p.competitor} {p.class_id} {p.role}", []).append(candidate.image_id)
    return {cell: sorted(ids) for cell, ids in chosen.items()}


def reading(root: Path) -> Chosen:
    """The bound: all files decoded, by as many threads, nothing done with them."""

    def read(competitor: int) -> None:
        for _ in ScoreStore(root).read("f", f"g{competitor}"):
            pass

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(read, range(COMPETITORS)))
    return {}


def pairs(root: Path) -> Iterator[tuple[str, str, Role]]:
    """Competitor, pattern of its files and role; none where there are no files."""
    for n in range(COMPETITORS):
        if (root / "f" / f"g{n}").is_dir():
            for role in Role:
                yield f"g{n}", f"{root}/f/g{n}/scores-*.parquet", role


def duckdb(root: Path) -> Chosen:
    """Lists unnested, windows joined, the n3 best by arg_max: the fastest of the ways that were tried."""
    from duckdb import connect

    base = connect()
    base.execute("CREATE TABLE windows (k INTEGER, low DOUBLE, high DOUBLE)")
    base.executemany(
        "INSERT INTO windows VALUES (?, ?, ?)", [(k, w.low, w.high) for k, w in windows().items()]
    )
    chosen: Chosen = {}
    for competitor, pattern, role in pairs(root):
        query = f"""
            WITH areas AS (
                SELECT image_id, miou AS d, pixels, unnest({role}_classes) AS k, unnest({role}_pixels) AS area
                FROM read_parquet('{pattern}')
            )
            SELECT k, arg_max(image_id, d, {N3}) FROM areas JOIN windows USING (k)
            WHERE area / pixels::DOUBLE BETWEEN low AND high GROUP BY k
        """  # noqa: S608 - our own names
        for k, ids in base.execute(query).fetchall():
            chosen[f"{competitor} {k} {role}"] = sorted(ids)
    return chosen


def polars(root: Path) -> Chosen:
    """Lists exploded, windows joined, top_k_by; lazily, by the streaming engine."""
    import polars as pl

    limits = pl.LazyFrame(
        [(k, w.low, w.high) for k, w in windows().items()],
        schema={"k": pl.UInt8, "low": pl.Float64, "high": pl.Float64},
        orient="row",
    )
    chosen: Chosen = {}
    for competitor, pattern, role in pairs(root):
        best = (
            pl.scan_parquet(pattern)
            .select("image_id", "miou", "pixels", k=f"{role}_classes", area=f"{role}_pixels")
            .explode("k", "area")
            .join(limits, on="k")
            .filter((pl.col("area") / pl.col("pixels")).is_between("low", "high"))
            .group_by("k")
            .agg(pl.col("image_id").top_k_by("miou", N3))
            .collect(engine="streaming")
        )
        for k, ids in best.iter_rows():
            chosen[f"{competitor} {k} {role}"] = sorted(ids)
    return chosen


if __name__ == "__main__":
    main()
