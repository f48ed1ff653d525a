"""The wire protocol, with request bodies as Label Studio 1.23.2 sends them, and the server that speaks it."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from mad_backend.errors import AbandonedError, BusyError, MadError, ModelError, PoolError
from mad_backend.serving.local_targets import LocalTargets
from mad_backend.serving.target_service import PredictRequest, TargetPrediction, TargetService
from mad_backend.serving.targets import TargetState, TargetStatus
from mad_backend.serving.task_images import TaskImageReader
from mad_backend.settings import Secrets
from mad_backend.web.app import create_app
from tests.served_world import CONFIG

TOKEN = "4c1f0e6a5d5b4a1f9c7e2b8d3a6f0c1d2e3f4a5b"
HEADERS = {"User-Agent": "heartex/1.23.2", "Content-Type": "application/json"}
SETUP = {
    "project": "19.1795333750",
    "schema": "<View/>",
    "hostname": "http://localhost:8091",
    "access_token": TOKEN,
    "extra_params": {},
}
WEBHOOK = {
    "action": "ANNOTATION_CREATED",
    "annotation": {
        "id": 49,
        "result": [],
        "was_cancelled": False,
        "lead_time": 2.1,
        "task": 1,
        "completed_by": 1,
    },
    "task": {"id": 1, "data": {}, "meta": {}},
    "project": {"id": 19, "label_config": "<View/>", "token": TOKEN},
}
SECRET = "a webhook's s3cret"


def predict_body(tasks: list[Any]) -> dict[str, Any]:
    params = {"login": None, "password": None, "context": None}
    return {"tasks": tasks, "project": "19.1795333750", "label_config": CONFIG, "params": params}


def client_of(world: Any, service: TargetService, secret: str | None = None) -> FlaskClient:
    secrets = Secrets(webhook_secret=None if secret is None else SecretStr(secret))
    return create_app(service, world.store, world.settings, secrets).test_client()


@pytest.fixture
def client(world: Any, service: TargetService) -> FlaskClient:
    return client_of(world, service)


def label_of(result: dict[str, Any]) -> str | None:
    return result["result"][0]["value"]["bitmasklabels"][0] if result["result"] else None


def test_health_and_setup_name_the_promoted_version_without_loading_it(
    world: Any, open_service: Callable[..., TargetService]
) -> None:
    broken = world.with_target(kind="hf", path=world.root / "nowhere")
    client = client_of(world, open_service(broken))
    health = client.get("/health", headers=HEADERS)
    assert health.status_code == 200
    assert health.json == {
        "status": "UP",
        "target": "scenes",
        "model_version": "scenes@0",
        "state": "ready",
        "error": None,
    }
    assert client.post("/setup", json=SETUP, headers=HEADERS).json == {"model_version": "scenes@0"}
    answer = client.post("/predict", json=predict_body([world.task("pool/0")]), headers=HEADERS)
    assert answer.status_code == 503
    assert answer.json is not None
    assert str(world.root / "nowhere") in answer.json["error"]


def test_a_model_that_failed_is_told_with_its_reason_and_nothing_to_wait_for(
    world: Any, open_service: Callable[..., TargetService]
) -> None:
    class Failed(LocalTargets):
        def status(self) -> TargetStatus:
            return TargetStatus("scenes@1", TargetState.FAILED, "weights/fast.onnx is gone")

    targets = Failed(world.store, world.settings, world.labels)
    answer = client_of(world, open_service(targets=targets)).get("/health")
    assert answer.status_code == 503
    assert answer.json is not None
    told = {key: answer.json[key] for key in ("status", "state", "model_version", "error")}
    assert list(told.values()) == ["DOWN", "failed", "scenes@1", "weights/fast.onnx is gone"]
    assert "Retry-After" not in answer.headers


def test_predict_answers_one_result_per_task_in_order(world: Any, client: FlaskClient) -> None:
    tasks = [world.task("pool/0", 1), {"id": 2, "data": {"item": "unknown"}}, world.task("pool/1", 3)]
    answer = client.post("/predict", json=predict_body(tasks), headers=HEADERS)
    assert answer.status_code == 200
    assert answer.json is not None
    results = answer.json["results"]
    assert [label_of(r) for r in results] == ["house", None, "house"]
    assert [(set(r), r["model_version"], r["score"]) for r in results] == [
        ({"model_version", "score", "result"}, "scenes@0", None)
    ] * 3
    region = results[0]["result"][0]
    assert (region["original_width"], region["original_height"], region["image_rotation"]) == (60, 40, 0)
    assert region["value"]["imageDataURL"].startswith("data:image/png;base64,")


def test_versions_lists_every_version_and_which_is_served(client: FlaskClient) -> None:
    answer = client.get("/versions").json
    assert answer is not None
    assert answer["versions"] == ["scenes@0", "scenes@1"]
    assert answer["details"] == [
        {
            "version": "scenes@0",
            "round": 0,
            "created_at": "2026-01-01T00:00:00+00:00",
            "promoted_at": "2026-01-01T00:00:00+00:00",
            "served": True,
        },
        {
            "version": "scenes@1",
            "round": 1,
            "created_at": "2026-01-01T00:00:00+00:00",
            "promoted_at": None,
            "served": False,
        },
    ]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", *(b"[" * n for n in (3, 200_000))])
def test_a_webhook_leaves_word_whatever_its_body(world: Any, client: FlaskClient, body: bytes) -> None:
    assert client.post("/webhook", data=body).status_code == 200
    assert world.store.remote.take_pull_wish()


def test_train_leaves_word_and_trains_nothing(world: Any, client: FlaskClient) -> None:
    assert client.post("/train", json={"annotations": []}).json == {"status": "ok"}
    assert world.store.remote.take_pull_wish()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/webhook", {}, 403),
        ("/webhook", {"X-MAD-Secret": "wrong"}, 403),
        ("/webhook", {"X-MAD-Secret": SECRET}, 200),
        ("/webhook", {"X-MAD-Secret": "\xe4"}, 403),
        ("/webhook/wrong", {}, 403),
        ("/webhook/%ff", {}, 403),
        (f"/webhook/{SECRET}", {}, 200),
        (f"/webhook/{SECRET}", {"X-MAD-Secret": "wrong"}, 403),
        (f"/webhook?secret={SECRET}", {}, 403),
    ],
)
def test_a_webhook_needs_the_secret_where_there_is_one(
    world: Any,
    service: TargetService,
    caplog: pytest.LogCaptureFixture,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    client = client_of(world, service, SECRET)
    with caplog.at_level(logging.DEBUG):
        assert client.post(path, json=WEBHOOK, headers=headers).status_code == status
    assert world.store.remote.take_pull_wish() is (status == 200)
    assert SECRET not in caplog.text


def test_tokens_are_neither_logged_nor_kept(
    world: Any, client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    task = {**world.task("pool/0"), "token": TOKEN}
    bodies = [
        ("/setup", SETUP),
        ("/webhook", WEBHOOK),
        ("/predict", predict_body([task, {"id": 1, "data": TOKEN}])),
    ]
    with caplog.at_level(logging.DEBUG):
        for path, body in bodies:
            assert client.post(path, json=body, headers=HEADERS).status_code == 200
            assert client.post(path + "/none/of/these", json=body, headers=HEADERS).status_code == 404
            client.post(path, data=b"{" + TOKEN.encode(), headers=HEADERS)
    assert TOKEN not in caplog.text
    written = b"".join(p.read_bytes() for p in world.root.glob("mad.sqlite3*"))
    assert TOKEN.encode() not in written


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"7",
        b"{}",
        b'{"tasks": {}}',
        b'{"tasks": null}',
        b"\xff\xfe",
        b"[" * 200_000,
    ],
    ids=range(10),
)
def test_a_garbage_body_is_refused_in_json(client: FlaskClient, body: bytes) -> None:
    answer = client.post("/predict", data=body, headers=HEADERS)
    assert answer.status_code == 400
    assert answer.json == {"error": 'wanted a JSON object with "tasks": a list of Label Studio tasks'}


def test_http_errors_are_json_and_keep_their_headers(client: FlaskClient) -> None:
    missing = client.get("/nothing")
    assert (missing.status_code, missing.is_json) == (404, True)
    wrong = client.get("/predict")
    assert (wrong.status_code, wrong.is_json) == (405, True)
    assert "POST" in wrong.headers["Allow"]
    large = client.post("/predict", data=bytes(64 * 2**20 + 1))
    assert (large.status_code, large.is_json) == (413, True), large.json
    assert large.headers.get_all("Content-Type") == ["application/json"]


def test_a_database_that_fails_is_told_as_such(world: Any, client: FlaskClient) -> None:
    world.store.close()
    for path in world.root.glob("mad.sqlite3*"):
        path.write_bytes(b"no database " * 1000)
    for answer in (
        client.get("/health"),
        client.post("/webhook"),
        client.post("/predict", json={"tasks": []}),
    ):
        assert answer.status_code == 503
        assert answer.json is not None
        assert "database" in answer.json["error"]


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (BusyError("too much is waiting", 7), 503, {"Retry-After": "7"}),
        (AbandonedError("nobody waits"), 499, {}),
        (PoolError("the bucket is away"), 503, {}),
        (ModelError("the weights are gone"), 503, {}),
    ],
)
def test_what_keeps_all_tasks_from_an_answer_is_told(
    world: Any,
    open_service: Callable[..., TargetService],
    error: MadError,
    status: int,
    headers: dict[str, str],
) -> None:
    class Unable(LocalTargets):
        def hold(self) -> Any:
            raise error

    targets = Unable(world.store, world.settings, world.labels)
    client = client_of(world, open_service(targets=targets))
    answer = client.post("/predict", json=predict_body([world.task("pool/0")]))
    assert (answer.status_code, answer.json) == (status, {"error": str(error)})
    assert headers.items() <= dict(answer.headers).items()


def test_answers_are_not_kept_by_proxies_nor_guessed_at_by_browsers(client: FlaskClient) -> None:
    for answer in (client.get("/health"), client.post("/predict", json=predict_body([])), client.get("/no")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_unforeseen_error_is_answered_without_its_traceback(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(TargetService):
        def predict(self, request: PredictRequest, is_abandoned: Any = None) -> list[TargetPrediction]:
            raise RuntimeError("the inner workings")

    client = client_of(
        world,
        Faulty(
            world.store,
            world.settings,
            LocalTargets(world.store, world.settings, world.labels),
            TaskImageReader(world.settings, Secrets(), world.store.remote.sign),
        ),
    )
    answer = client.post("/predict", json=predict_body([]))
    assert answer.status_code == 500
    assert answer.json == {"error": "internal error; the log of `mad serve` has the traceback"}
    assert "the inner workings" in caplog.text
