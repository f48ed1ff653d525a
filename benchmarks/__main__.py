"""Runs every benchmark, each in a process of its own; each prints one JSON object per figure."""

import subprocess
import sys

if __name__ == "__main__":
    for name in (
        "histogram",
        "store",
        "selection",
        "scan",
        "rle",
        "masks",
        "label_studio_push",
        "label_studio_pull",
        "acquisition",
        "ml_backend",
        "training",
    ):
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
