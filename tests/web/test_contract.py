"""Requests recorded from Label Studio 1.23.2, answered so that Label Studio takes the answers.

The rules are those of its `ml/api_connector.py`, `ml/models.py` and `ml/api.py`; `record.py` records.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from mad_backend.serving.target_service import TargetService
from mad_backend.settings import Secrets
from mad_backend.web.app import create_app
from tests.web.record import FOLDER, PASSWORD

RECORDED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
STEPS: dict[str, list[str]] = RECORDED.pop("steps")  # type: ignore[assignment]
KINDS = ("health", "setup", "versions", "predict", "webhook")


@pytest.fixture
def connected(world: Any, service: TargetService) -> Callable[..., FlaskClient]:
    """The application, with the password that the recorded requests have and, perhaps, a webhook secret."""

    def _connected(webhook_secret: str | None = None) -> FlaskClient:
        secret = SecretStr(webhook_secret) if webhook_secret else None
        secrets = Secrets(serve_password=SecretStr(PASSWORD), webhook_secret=secret)
        return create_app(service, world.store, world.settings, secrets).test_client()

    return _connected


def replay(client: FlaskClient, call: dict[str, Any], world: Any) -> tuple[Any, TestResponse]:
    """The body that was sent, with pool images in place of the recorded ones, and the answer."""
    body = copy.deepcopy(call["body"])
    for number, task in enumerate((body or {}).get("tasks", []) if call["path"] == "/predict" else []):
        task["data"] = world.task(f"pool/{number}")["data"]
    data = None if body is None else json.dumps(body)
    return body, client.open(call["path"], method=call["method"], headers=call["headers"], data=data)


def response_of(answer: TestResponse) -> dict[str, Any]:
    """As `MLApi._request`: an error status or no JSON is an error, and all that reads it wants an object."""
    assert answer.status_code < 400, answer.text
    response = json.loads(answer.data)
    assert isinstance(response, dict)
    return response


def predictions_of(serialized_tasks: list[dict[str, Any]], response: dict[str, Any]) -> list[dict[str, Any]]:
    """As `MLBackend._get_predictions_from_ml_backend`, whose complaints are asserts here."""
    assert "results" in response
    assert isinstance(response["results"], list)
    assert len(response["results"]) > 0
    assert len(serialized_tasks) == len(response["results"])
    predictions = []
    for task, given in zip(serialized_tasks, response["results"], strict=True):
        for one in [given] if isinstance(given, dict) else given:
            assert "result" in one
            predictions.append(
                {
                    "task": task["id"],
                    "result": one["result"],
                    "score": one.get("score"),
                    "model_version": one.get("model_version"),
                    "project": task["project"],
                }
            )
    return predictions


def check_region(region: dict[str, Any], label_config: str) -> None:
    """As `LabelInterface.validate_prediction`: control, object and labels are those of the configuration."""
    controls = {e.get("name"): e for e in ET.fromstring(label_config).iter() if e.get("toName")}
    control = controls[region["from_name"]]
    assert region["to_name"] in control.attrib["toName"].split(",")
    assert region["type"] == control.tag.lower()
    labels = {label.get("value") for label in control.iter("Label")}
    assert set(region["value"][region["type"]]) <= labels
    assert {"original_width", "original_height", "id"} <= set(region)


@pytest.mark.parametrize("name", [n for n in RECORDED if n.startswith("predict")])
def test_predictions_are_taken_by_label_studio(
    world: Any, connected: Callable[..., FlaskClient], name: str
) -> None:
    client = connected()
    body, answer = replay(client, RECORDED[name], world)
    _, setup = replay(client, RECORDED["setup"], world)
    predictions = predictions_of(body["tasks"], response_of(answer))
    assert {p["model_version"] for p in predictions} == {response_of(setup)["model_version"]} == {"scenes@0"}
    for prediction in predictions:
        assert prediction["score"] is None or isinstance(prediction["score"], float)
        for region in prediction["result"]:
            check_region(region, body["label_config"])
    if "interactive" not in name:
        assert all(p["result"] for p in predictions)


def test_other_answers_are_taken_by_label_studio(world: Any, connected: Callable[..., FlaskClient]) -> None:
    client = connected()
    for name in [n for n in RECORDED if not n.startswith("predict")]:
        response = response_of(replay(client, RECORDED[name], world)[1])
        match name.split("-", maxsplit=1)[0]:
            case "health":
                assert response["status"] == "UP"
            case "setup":
                assert response.get("model_version") == "scenes@0"
            case "versions":
                assert all(isinstance(version, str) for version in response["versions"])
            case "webhook":
                assert not response.get("job")
                assert world.store.remote.take_pull_wish(), name


def test_label_studio_calls_nothing_that_there_is_not(
    world: Any, connected: Callable[..., FlaskClient]
) -> None:
    called = {call for calls in STEPS.values() for call in calls}
    assert called == {"GET /health", "POST /setup", "POST /predict", "POST /webhook", "GET /versions"}
    assert {name.split("-")[0] for name in RECORDED} == set(KINDS)
    assert set(STEPS) >= {"connect", "open", "next", "retrieve", "train", "annotate", "disconnect"}


def test_with_a_secret_only_the_webhook_that_authenticates_comes_in(
    world: Any, connected: Callable[..., FlaskClient]
) -> None:
    client = connected("a secret")
    for name in [n for n in RECORDED if n.startswith("webhook")]:
        call = RECORDED[name]
        is_training = call["body"]["action"] == "START_TRAINING"
        assert ("Authorization" in call["headers"]) is is_training
        assert replay(client, call, world)[1].status_code == (200 if is_training else 403), name


def test_nothing_of_this_machine_is_recorded() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(FOLDER).glob("*.json"))
    for word in ("127.0.0.1", "localhost", str(Path.home()), "Bearer", "Token "):
        assert word not in text
