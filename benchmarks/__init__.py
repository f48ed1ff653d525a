"""Speed and memory, ours beside a peer's: `python -m benchmarks.NAME`, or all with `python -m benchmarks`."""
