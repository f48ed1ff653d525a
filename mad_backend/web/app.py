"""The web process: one Flask application under waitress, whose errors are JSON without tracebacks."""

import errno
import logging
import socket
from contextlib import closing
from typing import Any

from flask import Flask, Response, jsonify, request
from waitress.server import create_server
from werkzeug.exceptions import HTTPException

from mad_backend.errors import MadError, ModelError, StoreError
from mad_backend.pictures import PictureFolder
from mad_backend.settings import Secrets, ServeSettings, Settings
from mad_backend.store.store import Store
from mad_backend.web.media import media
from mad_backend.web.ml_backend import ml_backend
from mad_backend.web.target_service import TargetService

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A batch of some hundred tasks with their annotations is a few megabytes."""


def create_app(service: TargetService, store: Store, settings: Settings, secrets: Secrets) -> Flask:
    """The application; every error it answers is `{"error": <one sentence>}`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.register_blueprint(ml_backend(service, store, settings.models.name, secrets.webhook_secret))
    # Whatever label_studio.media is now: tasks that were sent before show what they showed.
    addresses = [settings.label_studio.url, *filter(None, [secrets.label_studio_url])]
    app.register_blueprint(media(PictureFolder(settings.pictures, store.remote.sign), addresses))
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(MadError, _failed)
    app.register_error_handler(Exception, _unforeseen)
    return app


def serve(settings: Settings, secrets: Secrets) -> None:
    """Serves until interrupted; raises MadError when it cannot listen, or when pool or database cannot be opened."""
    with (
        listen(settings.serve) as listener,
        closing(Store(settings.database_url)) as store,
        closing(TargetService(store, settings)) as service,
        closing(_server(create_app(service, store, settings, secrets), settings.serve, listener)) as server,
    ):
        log.info("serving %s on %s", settings.models.name, _address(settings.serve.host, listener))
        server.run()


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


def _server(app: Flask, settings: ServeSettings, listener: socket.socket) -> Any:
    return create_server(
        app,
        sockets=[listener],
        threads=settings.threads,
        max_request_body_size=MAX_BODY_BYTES,
        ident="mad",
    )


def _address(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _refused(error: HTTPException) -> Response:
    response = jsonify(error=error.description)
    response.status_code = error.code or 500
    # Some statuses mean nothing without their header: Allow with 405, Location with 308.
    kept = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    response.headers.extend(kept)
    return response


def _failed(error: MadError) -> tuple[Response, int]:
    # 503: with the store or the model mended, the same request succeeds.
    status = 503 if isinstance(error, StoreError | ModelError) else 500
    log.error("%s %s: %s", request.method, request.endpoint, error)
    return jsonify(error=str(error)), status


def _unforeseen(error: Exception) -> tuple[Response, int]:
    # The endpoint, not the path, which may hold the webhook secret.
    log.error("%s %s", request.method, request.endpoint, exc_info=error)
    return jsonify(error="internal error; the log of `mad serve` has the traceback"), 500
