"""The joint histogram of one pair of label maps, and d from it, beside scikit-learn's confusion_matrix."""

import numpy as np
from sklearn.metrics import confusion_matrix

from benchmarks.figure import median_rate, print_figure
from mad_backend.core.discrepancy import discrepancy
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.records import Metric

CLASSES, SIDE, PAIRS = 21, 513, 4


def main() -> None:
    """513 x 513, 21 classes, blocks of one class as in real maps; one core."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, CLASSES, (PAIRS, 2, 27, 27), dtype=np.uint8)
    pairs = np.kron(blocks, np.ones((19, 19), np.uint8))
    ours = median_rate(
        lambda: [discrepancy(joint_histogram(a, b, CLASSES), Metric.MIOU) for a, b in pairs], PAIRS
    )
    peer = median_rate(
        lambda: [confusion_matrix(a.ravel(), b.ravel(), labels=range(CLASSES)) for a, b in pairs],
        PAIRS,
        repeats=3,
    )
    print_figure("joint histogram and d", "pairs/s", ours, peer, "scikit-learn confusion_matrix", 10.0)


if __name__ == "__main__":
    main()
