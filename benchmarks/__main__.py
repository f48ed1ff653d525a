"""Runs every benchmark; each prints one JSON object per figure."""

from benchmarks import histogram

if __name__ == "__main__":
    histogram.main()
