"""What the process that owns the model counts, for /metrics of the web workers."""

from prometheus_client import Counter, Gauge, Histogram

_BATCHES = Histogram(
    "mad_model_batch_seconds",
    "Time of one forward pass of the target",
    ["version"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_FRAMES = Counter("mad_model_frames", "Images that the target predicted", ["version"])
_WAITING = Gauge(
    "mad_model_waiting_frames",
    "Images that waited for the target when its last batch was done",
    ["version"],
    multiprocess_mode="livesum",
)


class ModelMetrics:
    """Of one version."""

    def __init__(self, version: str) -> None:
        self._batches = _BATCHES.labels(version)
        self._frames = _FRAMES.labels(version)
        self._waiting = _WAITING.labels(version)

    def count(self, frames: int, seconds: float, waiting: int) -> None:
        """A batch of `frames` took `seconds`, and `waiting` frames have no answer yet."""
        self._batches.observe(seconds)
        self._frames.inc(frames)
        self._waiting.set(waiting)
