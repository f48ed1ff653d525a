"""One figure: ours beside a peer's, in one run, by the median of repeats."""

import json
import statistics
import sys
import time
from collections.abc import Callable


def median_rate(work: Callable[[], object], items: int, repeats: int = 7) -> float:
    """Items per second of process time, the median of `repeats` after one warm-up."""
    work()
    rates = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        rates.append(items / (time.process_time() - began))
    return statistics.median(rates)


def print_figure(name: str, unit: str, ours: float, peer: float, peer_name: str, goal: float) -> None:
    """`goal` is the ratio ours / peer that is wanted; more is better."""
    ratio = ours / peer
    figure = {
        "name": name,
        "unit": unit,
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "peer_name": peer_name,
        "bound": None,
        "ratio": round(ratio, 2),
        "goal": goal,
        "met": ratio >= goal,
    }
    sys.stdout.write(json.dumps(figure) + "\n")
