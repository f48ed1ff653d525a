"""Label Studio's ML-backend protocol, as version 1.23.2 speaks it.

Bodies are read by /predict alone: those of /setup hold a token, those of /webhook whole annotations.
"""

from typing import Any

from flask import Blueprint, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST

from mad_backend.core.records import ModelVersion
from mad_backend.serving.target_service import TargetService
from mad_backend.serving.targets import TargetState
from mad_backend.store.store import Store
from mad_backend.web.auth import Credentials, check_webhook
from mad_backend.web.bodies import predict_request, results_body
from mad_backend.web.callers import hung_up
from mad_backend.web.limits import Places
from mad_backend.web.metrics import WebMetrics
from mad_backend.web.wishes import Wishes


def ml_backend(
    service: TargetService,
    store: Store,
    target: str,
    credentials: Credentials,
    places: Places,
    metrics: WebMetrics,
) -> Blueprint:
    """The protocol's routes; `target` is the target model's name in settings."""
    routes = Blueprint("ml_backend", __name__)
    wishes = Wishes(store)

    @routes.get("/health")
    def health() -> Response:
        """503 only for a model that failed: Label Studio then opens tasks without asking for predictions."""
        status = service.status()
        answer = jsonify(
            status="DOWN" if status.state is TargetState.FAILED else "UP",
            target=target,
            model_version=status.version,
            state=status.state,
            error=status.error or None,
        )
        # Without Retry-After, which Label Studio's client would wait for, twice, in an annotator's request.
        answer.status_code = 503 if status.state is TargetState.FAILED else 200
        return answer

    @routes.post("/setup")
    def setup() -> Response:
        return jsonify(model_version=service.served_version())

    @routes.post("/predict")
    def predict() -> Response:
        with places.taken(), metrics.in_flight():
            asked = predict_request(request)
            metrics.asked(len(asked.tasks))
            answers = service.predict(asked, hung_up(request.environ))
            with_regions = sum(bool(answer.regions) for answer in answers)
            metrics.answered(with_regions, len(answers) - with_regions)
            return Response(results_body(answers), mimetype="application/json")

    @routes.post("/webhook")
    @routes.post("/webhook/<secret>")
    def webhook(secret: str = "") -> Response:
        check_webhook(credentials, secret)
        wishes.leave()
        return jsonify(status="ok")

    @routes.post("/train")
    def train() -> Response:
        """Trains nothing itself: whether fine-tuning is due is for `mad schedule` to say, once it has the answers."""
        wishes.leave()
        return jsonify(status="ok")

    @routes.get("/versions")
    def versions() -> Response:
        served = service.served_version()
        found = store.versions.all()
        return jsonify(versions=[v.version for v in found], details=[_details(v, served) for v in found])

    @routes.get("/metrics")
    def prometheus() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    return routes


def _details(version: ModelVersion, served: str | None) -> dict[str, Any]:
    promoted_at = version.promoted_at
    return {
        "version": version.version,
        "round": version.round_number,
        "created_at": version.created_at.isoformat(),
        "promoted_at": promoted_at.isoformat() if promoted_at else None,
        "served": version.version == served,
    }
