"""`mad serve`: web workers on one listening socket, and the model in a process beside them."""

import errno
import logging
import socket
from functools import partial
from ipaddress import ip_address
from typing import Final

from mad_backend.errors import MadError
from mad_backend.serving.supervisor import Supervisor, WebWork
from mad_backend.settings import Secrets, ServeSettings, Settings
from mad_backend.web.job import WebJob

log = logging.getLogger(__name__)

_WORK: Final = "mad_backend.web.worker:work"
"""Named and not imported: this process has no use for the application, which takes a second to import."""


def serve(settings: Settings, secrets: Secrets) -> None:
    """Serves until SIGTERM or SIGINT (Ctrl-C); to be called in the main thread.

    Raises MadError when it cannot listen, or when pool or database cannot be opened.
    """
    warn_if_open(settings.serve, secrets)
    with listen(settings.serve) as listener:
        web = WebWork(_WORK, partial(WebJob, settings, secrets, listener.fileno()))
        supervisor = Supervisor(settings, listener, web)
        supervisor.run(f"serving {settings.models.name} on {_address(settings.serve.host, listener)}")


def listen(settings: ServeSettings) -> socket.socket:
    """A listening socket; raises MadError naming host and port, and what to do."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        cure = (
            "stop the program that has it, or set another serve.port"
            if error.errno == errno.EADDRINUSE
            else "check serve.host and serve.port in the settings"
        )
        raise MadError(
            f"cannot listen on port {settings.port} of {settings.host}: {error.strerror}; {cure}"
        ) from error


def warn_if_open(serve: ServeSettings, secrets: Secrets) -> None:
    """One warning when other machines may ask without a password."""
    if secrets.serve_password is None and not _is_loopback(serve.host):
        also = "" if secrets.webhook_secret else ", and MAD_WEBHOOK_SECRET for webhooks"
        log.warning(
            "whoever reaches %s may ask for predictions; set MAD_SERVE_PASSWORD%s, or serve.host to 127.0.0.1",
            serve.host,
            also,
        )


def _address(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
