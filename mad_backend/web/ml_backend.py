"""Label Studio's ML-backend protocol, as version 1.23.2 speaks it.

Bodies are read by /predict alone: those of /setup hold a token, those of /webhook whole annotations.
"""

import hmac
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request
from pydantic import SecretStr

from mad_backend.core.records import ModelVersion
from mad_backend.label_studio.webhook import SECRET_HEADER
from mad_backend.store.store import Store
from mad_backend.web.target_service import TargetPrediction, TargetService


def ml_backend(
    service: TargetService, store: Store, target: str, webhook_secret: SecretStr | None
) -> Blueprint:
    """The protocol's routes; `target` is the target model's name in settings."""
    routes = Blueprint("ml_backend", __name__)

    @routes.get("/health")
    def health() -> Response:
        return jsonify(status="UP", target=target, model_version=service.promoted_version())

    @routes.post("/setup")
    def setup() -> Response:
        return jsonify(model_version=service.promoted_version())

    @routes.post("/predict")
    def predict() -> Response:
        return jsonify(results=[_prediction(answer) for answer in service.predict(_tasks())])

    @routes.post("/webhook")
    @routes.post("/webhook/<secret>")
    def webhook(secret: str = "") -> Response:
        given = request.headers.get(SECRET_HEADER, secret)
        if webhook_secret is not None and not _is_equal(given, webhook_secret):
            abort(403, f"wanted the webhook secret in the header {SECRET_HEADER}, or as /webhook/<secret>")
        store.remote.want_pull()
        return jsonify(status="ok")

    @routes.get("/versions")
    def versions() -> Response:
        served = service.promoted_version()
        found = store.versions.all()
        return jsonify(versions=[v.version for v in found], details=[_details(v, served) for v in found])

    return routes


def _tasks() -> list[object]:
    """`tasks` of the request's body; aborts with 400 where there is no such list."""
    try:
        # Whatever the content type says: Label Studio's is right, a person's curl is often not.
        body = request.get_json(force=True, silent=True)
    except RecursionError:
        body = None
    tasks = body.get("tasks") if isinstance(body, dict) else None
    if not isinstance(tasks, list):
        abort(400, 'wanted a JSON object with "tasks": a list of Label Studio tasks')
    return tasks


def _prediction(answer: TargetPrediction) -> dict[str, Any]:
    # No score: label maps carry no confidence, and a made-up one would be shown to annotators as a percentage.
    return {"model_version": answer.model_version, "score": None, "result": list(answer.regions)}


def _details(version: ModelVersion, served: str | None) -> dict[str, Any]:
    promoted_at = version.promoted_at
    return {
        "version": version.version,
        "round": version.round_number,
        "created_at": version.created_at.isoformat(),
        "promoted_at": promoted_at.isoformat() if promoted_at else None,
        "served": version.version == served,
    }


def _is_equal(given: str, secret: SecretStr) -> bool:
    """Compared in constant time, so that answers tell nothing about how much of a guess was right."""
    return hmac.compare_digest(given.encode(), secret.get_secret_value().encode())
