"""Runs every benchmark; each prints one JSON object per figure."""

import warnings

from benchmarks import histogram, scan, selection, store

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    for benchmark in (histogram, store, selection, scan):
        benchmark.main()
