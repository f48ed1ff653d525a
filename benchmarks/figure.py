"""One figure: ours beside a peer's, in one run, by the median of repeats."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).parents[2] / "shared" / "data"
"""Real photos, label maps and models, beside the repository; figures that need them say so where they are absent."""


def median_rate(work: Callable[[], object], items: int, repeats: int = 7) -> float:
    """Items per second of process time, the median of `repeats` after one warm-up."""
    work()
    rates = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        rates.append(items / (time.process_time() - began))
    return statistics.median(rates)


def print_figure(
    name: str,
    unit: str,
    ours: float,
    peer: float,
    peer_name: str,
    goal: float,
    bound: float | None = None,
    *,
    less_is_better: bool = False,
) -> None:
    """`ratio` is ours / peer, `goal` what it shall be at least, or at most where less is better.

    `bound` is what nobody can beat this way, in the same unit.
    """
    ratio = ours / peer
    figure = {
        "name": name,
        "unit": unit,
        "ours": _short(ours),
        "peer": _short(peer),
        "peer_name": peer_name,
        "bound": None if bound is None else _short(bound),
        "ratio": _short(ratio),
        "goal": goal,
        "met": ratio <= goal if less_is_better else ratio >= goal,
    }
    sys.stdout.write(json.dumps(figure) + "\n")
    sys.stdout.flush()


def print_absent(name: str, wanted: Path) -> None:
    """Says that a figure could not be measured here."""
    sys.stdout.write(json.dumps({"name": name, "skipped": f"needs {wanted.name}/ of the data folder"}) + "\n")


def _short(number: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{number:.4g}")
