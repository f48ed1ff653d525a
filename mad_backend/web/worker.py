"""A web worker of `mad serve`: the application on the socket that all workers share."""

import logging
import signal
import socket
import time
from contextlib import closing
from typing import Any, Final

from waitress import wasyncore

from mad_backend.serving.children import GRACE_S, Ready, Tell, stop_on
from mad_backend.serving.remote_targets import RemoteTargets
from mad_backend.serving.target_service import TargetService
from mad_backend.serving.task_images import TaskImageReader
from mad_backend.store.store import Store
from mad_backend.web.app import create_app
from mad_backend.web.job import WebJob
from mad_backend.web.web_server import web_server

log = logging.getLogger(__name__)

_LOOP_S: Final = 1.0


def work(job: WebJob, tell: Tell) -> None:
    """Until SIGTERM; tells Ready. Raises MadError when pool, label set or database cannot be opened."""
    settings = job.settings
    with (
        socket.socket(fileno=job.listener) as listener,
        closing(Store(settings.database_url)) as store,
        closing(RemoteTargets(store, job.folder)) as targets,
        closing(
            TargetService(store, settings, targets, TaskImageReader(settings, job.secrets, store.remote.sign))
        ) as service,
    ):
        service.warm_up()
        app = create_app(service, store, settings, job.secrets)
        _serve(web_server(app, settings.serve, listener), tell)


def _serve(server: Any, tell: Tell) -> None:
    """After SIGTERM nobody new is let in, and requests that run have their time."""
    stops: list[float] = []

    def stop() -> None:
        stops.append(time.monotonic())
        server.pull_trigger()

    stop_on(signal.SIGTERM, stop)
    tell(Ready())
    channels = server._map  # noqa: SLF001 - `server.run` would drop the answers that are on their way
    while not stops:
        wasyncore.loop(_LOOP_S, use_poll=True, map=channels, count=1)
    server.del_channel()
    server.socket.close()
    while time.monotonic() < stops[0] + GRACE_S and _is_busy(server):
        wasyncore.loop(0.05, use_poll=True, map=channels, count=1)
    server.task_dispatcher.shutdown(timeout=0.5)


def _is_busy(server: Any) -> bool:
    open_ones = list(server.active_channels.values())
    return any(channel.requests or channel.request or channel.total_outbufs_len for channel in open_ones)
