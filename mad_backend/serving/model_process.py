"""The process that owns the model: one version, loaded, tried and served on a Unix socket."""

import logging
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mad_backend.core.grid import Grid
from mad_backend.core.records import Frame, ModelVersion
from mad_backend.models.base import SegmentationModel
from mad_backend.serving.children import Ready, Tell, stop_on
from mad_backend.serving.model_server import ModelServer
from mad_backend.settings import Settings
from mad_backend.settings_file import load_label_set
from mad_backend.targets import load_target, target_key

log = logging.getLogger(__name__)

WORK = "mad_backend.serving.model_process:work"


@dataclass(frozen=True)
class ModelJob:
    """Which version to serve, and the path of the socket to serve it on."""

    version: ModelVersion
    settings: Settings
    socket: Path


@dataclass(frozen=True)
class KeyKnown:
    """Told before the model is loaded: under this key its label maps are stored."""

    key: str


def work(job: ModelJob, tell: Tell) -> None:
    """Until SIGTERM, after which requests that hold the version are still served.

    Tells KeyKnown, then Ready. Raises whatever the model raises while it is loaded or tried.
    """
    labels = load_label_set(job.settings.label_set)
    grid = Grid(job.settings.grid.size, job.settings.grid.fit)
    tell(KeyKnown(target_key(job.version, job.settings, labels, grid)))
    model = load_target(job.version, job.settings, labels, grid)
    try:
        _try(model, grid)
        _serve(model, job, tell)
    finally:
        model.close()


def _try(model: SegmentationModel, grid: Grid) -> None:
    """Compiles what is compiled at first use, and refuses a model that is loaded but cannot predict."""
    grey = np.full((grid.size, grid.size, 3), 128, np.uint8)
    model.predict([Frame("warm-up", grey, (grid.size, grid.size))])


def _serve(model: SegmentationModel, job: ModelJob, tell: Tell) -> None:
    # Late, since the supervisor, which imports this module, measures nothing.
    from mad_backend.serving.model_metrics import ModelMetrics

    serve, batch_size = job.settings.serve, job.settings.models.target.batch_size
    metrics = ModelMetrics(job.version.version)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(job.socket))
        listener.listen(serve.workers * serve.queue)
        server = ModelServer(
            model,
            listener,
            queue=serve.workers * serve.queue,
            batch_size=batch_size,
            on_batch=lambda frames, seconds: metrics.count(frames, seconds, server.waiting()),
        )
        stop_on(signal.SIGTERM, server.drain)
        tell(Ready())
        server.run()
