"""The application under waitress, whose own refusals are JSON as well."""

import json
import logging
import socket
from typing import Any, Final

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from mad_backend.settings import ServeSettings
from mad_backend.web.limits import too_long

log = logging.getLogger(__name__)

_OTHER_CONNECTIONS: Final = 100
"""Beside those that wait for predictions; browsers and Label Studio keep theirs open for a while."""


def web_server(app: Flask, settings: ServeSettings, listener: socket.socket) -> Any:
    """A waitress server on `listener`, to `run` and to `close`."""
    server = create_server(
        app,
        sockets=[listener],
        threads=settings.queue + settings.threads,
        # Waitress refuses before it has read the body, and a client that is still sending then sees a reset and not
        # the answer: up to twice the limit is read, and refused by the application.
        max_request_body_size=2 * settings.max_body_bytes,
        # Without it, it is not seen that a client hung up before its request is answered.
        channel_request_lookahead=1,
        connection_limit=settings.queue + settings.threads + _OTHER_CONNECTIONS,
        asyncore_use_poll=True,
        ident="mad",
    )
    server.channel_class = _Channel
    logger = logging.getLogger("waitress")
    if not any(isinstance(known, _WithoutPaths) for known in logger.filters):
        logger.addFilter(_WithoutPaths())
    return server


class _JsonErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """What waitress answers without asking the application: malformed HTTP, headers or bodies that are too long."""

    def execute(self) -> None:
        error, limits = self.request.error, self.channel.adj
        reason = f"{error.reason}: {error.body}"
        if error.code == 413:
            reason = too_long(limits.max_request_body_size // 2)
            log.warning("refused before it was read: %s", reason)
        body = json.dumps({"error": reason}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [
            ("Content-Type", "application/json"),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    error_task_class = _JsonErrorTask

    def send_continue(self) -> None:
        """Waitress itself would ask for the body of a request that it has just refused."""
        if self.request.error is None:
            super().send_continue()


class _WithoutPaths(logging.Filter):
    """Keeps paths out of waitress' lines: that of a webhook may end in its secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        begin, found, _path = record.getMessage().partition(" while serving ")
        if found:
            record.msg, record.args = f"{begin} while serving a request", ()
        # Whose client hung up is told by the application, if it had anything left to do.
        return not begin.startswith("Client disconnected")
