"""The wire protocol, with request bodies as Label Studio 1.23.2 sends them, and the server that speaks it."""

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from pydantic import SecretStr

from mad_backend.errors import MadError
from mad_backend.settings import Secrets, ServeSettings
from mad_backend.web.app import MAX_BODY_BYTES, create_app, listen, serve
from mad_backend.web.target_service import TargetPrediction, TargetService

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
    return {"tasks": tasks, "project": "19.1795333750", "label_config": "<View/>", "params": params}


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
    assert health.json == {"status": "UP", "target": "scenes", "model_version": "scenes@0"}
    assert client.post("/setup", json=SETUP, headers=HEADERS).json == {"model_version": "scenes@0"}
    answer = client.post("/predict", json=predict_body([world.task("pool/0")]), headers=HEADERS)
    assert answer.status_code == 503
    assert answer.json is not None
    assert str(world.root / "nowhere") in answer.json["error"]


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
    large = client.post("/predict", data=bytes(MAX_BODY_BYTES + 1))
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


def test_an_unforeseen_error_is_answered_without_its_traceback(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(TargetService):
        def predict(self, tasks: Sequence[object]) -> list[TargetPrediction]:
            raise RuntimeError("the inner workings")

    client = client_of(world, Faulty(world.store, world.settings))
    answer = client.post("/predict", json=predict_body([]))
    assert answer.status_code == 500
    assert answer.json == {"error": "internal error; the log of `mad serve` has the traceback"}
    assert "the inner workings" in caplog.text


SERVE = """
import logging, sys
from pathlib import Path
from mad_backend.settings import Secrets
from mad_backend.settings_file import load_settings
from mad_backend.web.app import serve
logging.basicConfig(level=logging.INFO, format="%(message)s")
serve(load_settings(Path(sys.argv[1])), Secrets())
"""


@pytest.fixture
def address(world: Any) -> Iterator[str]:
    """`serve` in a process of its own, on a free port."""
    settings = world.settings.model_copy(update={"serve": ServeSettings(port=0)})
    path = world.root / "mad.yaml"
    path.write_text(settings.model_dump_json())
    environment = {**os.environ, "MAD_WEBHOOK_SECRET": SECRET}
    command = [sys.executable, "-c", SERVE, str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            # Other libraries may log first; a server that ends without the line ends the loop.
            line = next((x for x in process.stderr if x.startswith("serving scenes on ")), None)
            assert line is not None
            yield line.removeprefix("serving scenes on ").strip()
        finally:
            process.terminate()
            rest = process.stderr.read()
            assert process.wait(10) == -signal.SIGTERM, rest
            assert SECRET not in rest
            assert TOKEN not in rest


def test_the_server_swaps_versions_while_requests_run(world: Any, address: str) -> None:
    body = predict_body([world.task(f"pool/{n % 5}", n) for n in range(12)])
    own = {"scenes@0": "house", "scenes@1": "tree"}

    def ask(_: int) -> set[tuple[str, str | None]]:
        answer = requests.post(f"{address}/predict", json=body, headers=HEADERS, timeout=20)
        results = answer.json()["results"]
        assert len(results) == 12
        return {(r["model_version"], label_of(r)) for r in results}

    with ThreadPoolExecutor(4) as threads:
        before = list(threads.map(ask, range(2)))
        pending = [threads.submit(ask, n) for n in range(12)]
        world.store.versions.promote("scenes@1", world.store.versions.get("scenes@1").created_at, "test")
        during = [request.result() for request in pending]
    assert before == [{("scenes@0", "house")}] * 2
    assert all(len(seen) == 1 and seen <= set(own.items()) for seen in during)
    assert ask(0) == {("scenes@1", "tree")}
    assert requests.get(f"{address}/health", timeout=20).json()["model_version"] == "scenes@1"
    assert requests.post(f"{address}/setup", json=SETUP, timeout=20).json() == {"model_version": "scenes@1"}
    assert requests.post(f"{address}/webhook", json=WEBHOOK, timeout=20).status_code == 403
    assert not world.store.remote.take_pull_wish()
    sent = {"X-MAD-Secret": SECRET}
    assert requests.post(f"{address}/webhook", json=WEBHOOK, headers=sent, timeout=20).status_code == 200
    assert world.store.remote.take_pull_wish()


def test_a_taken_port_is_named_with_what_to_do(world: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = world.settings.model_copy(update={"serve": ServeSettings(port=port)})
        with pytest.raises(
            MadError, match=rf"port {port} of 127\.0\.0\.1: .* in use.*; .* another serve\.port"
        ):
            serve(settings, Secrets())


def test_an_address_of_another_machine_is_refused_with_the_setting_to_check() -> None:
    with pytest.raises(MadError, match=r"port 0 of 192\.0\.2\.1: .* check serve\.host"):
        listen(ServeSettings(host="192.0.2.1", port=0))
