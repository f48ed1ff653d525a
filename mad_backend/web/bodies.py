"""JSON of /predict: what is asked, read from whatever came, and answers as Label Studio wants them."""

import json
from collections.abc import Iterable
from typing import Any

from flask import Request, abort

from mad_backend.serving.target_service import PredictRequest, TargetPrediction


def predict_request(request: Request) -> PredictRequest:
    """What the body asks for; aborts with 400 where there is no list of tasks, with 413 where it is too long."""
    # Whatever the content type says: Label Studio's is right, a person's curl is often not.
    body = _parsed(request.get_data(cache=False))
    tasks = body.get("tasks") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(tasks, list):
        abort(400, 'wanted a JSON object with "tasks": a list of Label Studio tasks')
    config, params = body.get("label_config"), body.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    return PredictRequest([_task(t) for t in tasks], config if isinstance(config, str) else "", context)


def results_body(answers: Iterable[TargetPrediction]) -> bytes:
    """`{"results": [...]}` in ASCII; written task by task, so that other threads get their turn in between."""
    results = (json.dumps(_prediction(a), allow_nan=False, separators=(",", ":")) for a in answers)
    return b'{"results":[' + b",".join(result.encode("ascii") for result in results) + b"]}\n"


def _parsed(body: bytes) -> Any:
    """None where it is no JSON, or nested so deep that nothing could handle it; NaN and the like become None."""
    try:
        return json.loads(body, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return None


def _task(task: Any) -> Any:
    """As it came, but for an id that is none: the log names tasks by it, and cannot write every depth of nesting."""
    if isinstance(task, dict) and not isinstance(task.get("id"), int | str | None):
        return {**task, "id": None}
    return task


def _prediction(answer: TargetPrediction) -> dict[str, Any]:
    # No score: label maps carry no confidence, and a made-up one would be shown to annotators as a percentage.
    return {"model_version": answer.model_version, "score": None, "result": list(answer.regions)}
