"""The Flask application of a web process, whose errors are JSON without tracebacks."""

import logging
import time

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from mad_backend.errors import AbandonedError, BusyError, MadError, ModelError, PoolError, StoreError
from mad_backend.pictures import PictureFolder
from mad_backend.serving.target_service import TargetService
from mad_backend.settings import Secrets, Settings
from mad_backend.store.store import Store
from mad_backend.web.auth import Credentials, require
from mad_backend.web.limits import Places, too_long
from mad_backend.web.media import media
from mad_backend.web.metrics import Served, WebMetrics
from mad_backend.web.ml_backend import ml_backend

log = logging.getLogger(__name__)

_OWN_ACCESS = frozenset({"media.picture", "ml_backend.webhook"})
"""Endpoints that browsers and webhooks call, which have no password: signed addresses, and a secret."""


def create_app(service: TargetService, store: Store, settings: Settings, secrets: Secrets) -> Flask:
    """The application; every error it answers is `{"error": <one sentence>}`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.serve.max_body_bytes
    metrics = WebMetrics(Served(service, store, settings.models.name))
    credentials = Credentials(settings.serve.user, secrets)
    # Counted before anything else has its say, so that refused requests are counted too.
    _count(app, metrics)
    require(app, credentials, _OWN_ACCESS)
    places = Places(settings.serve.queue)
    app.register_blueprint(ml_backend(service, store, settings.models.name, credentials, places, metrics))
    # Whatever label_studio.media is now: tasks that were sent before show what they showed.
    addresses = [settings.label_studio.url, *filter(None, [secrets.label_studio_url])]
    app.register_blueprint(media(PictureFolder(settings.pictures, store.remote.sign), addresses))
    _answer_errors(app, metrics)
    return app


def _count(app: Flask, metrics: WebMetrics) -> None:
    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(answer: Response) -> Response:
        endpoint = (request.endpoint or "none").rpartition(".")[2]
        metrics.request(endpoint, answer.status_code, time.perf_counter() - g.began)
        answer.headers.setdefault("X-Content-Type-Options", "nosniff")
        if request.blueprint != "media":
            answer.headers["Cache-Control"] = "no-store"
        return answer


def _answer_errors(app: Flask, metrics: WebMetrics) -> None:
    limit = app.config["MAX_CONTENT_LENGTH"]

    @app.errorhandler(RequestEntityTooLarge)
    def refuse_long(_error: RequestEntityTooLarge) -> tuple[Response, int]:
        log.warning("%s %s: %s bytes are too many", request.method, request.endpoint, request.content_length)
        return jsonify(error=too_long(limit)), 413

    @app.errorhandler(BusyError)
    def send_away(error: BusyError) -> tuple[Response, int, dict[str, str]]:
        metrics.busy.inc()
        log.warning("%s %s: %s", request.method, request.endpoint, error)
        return jsonify(error=str(error)), 503, {"Retry-After": str(error.retry_after_s)}

    @app.errorhandler(AbandonedError)
    def leave_off(error: AbandonedError) -> Response:
        metrics.abandoned.inc()
        log.info("%s %s: %s", request.method, request.endpoint, error)
        answer = jsonify(error=str(error))
        answer.status = "499 Client Closed Request"
        return answer

    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(MadError, _failed)
    app.register_error_handler(Exception, _unforeseen)


def _refused(error: HTTPException) -> Response:
    response = jsonify(error=error.description)
    response.status_code = error.code or 500
    # Some statuses mean nothing without their header: Allow with 405, Location with 308.
    kept = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    response.headers.extend(kept)
    return response


def _failed(error: MadError) -> tuple[Response, int]:
    # 503: with the store, the pool or the model mended, the same request succeeds.
    status = 503 if isinstance(error, StoreError | ModelError | PoolError) else 500
    log.error("%s %s: %s", request.method, request.endpoint, error)
    return jsonify(error=str(error)), status


def _unforeseen(error: Exception) -> tuple[Response, int]:
    # The endpoint, not the path, which may hold the webhook secret.
    log.error("%s %s", request.method, request.endpoint, exc_info=error)
    return jsonify(error="internal error; the log of `mad serve` has the traceback"), 500
