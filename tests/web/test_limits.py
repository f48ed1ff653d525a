"""What a worker takes on, through the real server: requests at once, bytes of a body, callers who hang up."""

import json
import logging
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
import requests
from flask import Flask

from mad_backend.serving.local_targets import LocalTargets
from mad_backend.serving.target_service import TargetService
from mad_backend.settings import Secrets, ServeSettings
from mad_backend.web.app import create_app
from tests.web.running import PATIENCE_S, SlowTargets, running
from tests.web.test_ml_backend import SECRET, SETUP, WEBHOOK, predict_body

SERVE = ServeSettings(queue=2, threads=2, max_body_bytes=2**16)


@pytest.fixture
def slow(world: Any) -> SlowTargets:
    return SlowTargets(LocalTargets(world.store, world.settings, world.labels))


@pytest.fixture
def app(world: Any, slow: SlowTargets, open_service: Callable[..., TargetService]) -> Flask:
    settings = world.settings.model_copy(update={"serve": SERVE})
    return create_app(open_service(settings, targets=slow), world.store, settings, Secrets())


@pytest.fixture
def port(app: Flask) -> Iterator[int]:
    with running(app, SERVE) as found:
        yield found


def wait_for(condition: Any) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def raw(port: int, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to exactly these bytes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
        connection.sendall(sent)
        answer = b""
        while part := connection.recv(2**16):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def test_one_request_too_many_is_sent_away_and_quick_ones_are_answered_meanwhile(
    world: Any, slow: SlowTargets, port: int
) -> None:
    url, body = f"http://127.0.0.1:{port}", predict_body([world.task("pool/0")])
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(requests.post, f"{url}/predict", json=body) for _ in range(2)]
        try:
            assert all(slow.begun.acquire(timeout=PATIENCE_S) for _ in waiting)
            refused = requests.post(f"{url}/predict", json=body, timeout=PATIENCE_S)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "5"
            assert refused.json()["error"].startswith(
                "2 requests for predictions are being answered (serve.queue)"
            )
            assert requests.get(f"{url}/health", timeout=PATIENCE_S).status_code == 200
            assert requests.post(f"{url}/setup", json=SETUP, timeout=PATIENCE_S).json() == {
                "model_version": "scenes@0"
            }
            assert requests.post(f"{url}/webhook", json=WEBHOOK, timeout=PATIENCE_S).status_code == 200
            told = requests.get(f"{url}/metrics", timeout=PATIENCE_S).text
            assert "mad_predict_in_flight 2.0" in told
            assert "mad_predict_busy_total 1.0" in told
        finally:
            slow.go.set()
        assert [len(w.result().json()["results"]) for w in waiting] == [1, 1]
    assert requests.post(f"{url}/predict", json=body, timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_work_for_a_caller_who_hung_up_stops(
    world: Any, slow: SlowTargets, port: int, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(predict_body([world.task("pool/0")])).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with caplog.at_level(logging.INFO):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as caller:
            caller.sendall(head + body)
            assert slow.begun.acquire(timeout=PATIENCE_S)
            if how == "half-close":
                caller.shutdown(socket.SHUT_WR)
                assert caller.recv(1) == b""
            elif how == "reset":
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        metrics = f"http://127.0.0.1:{port}/metrics"
        wait_for(lambda: "mad_predict_abandoned_total 1.0" in requests.get(metrics, timeout=PATIENCE_S).text)
    assert [r.getMessage() for r in caplog.records] == [
        "POST ml_backend.predict: nobody waits for the answer any more"
    ]
    assert (
        'mad_http_requests_total{endpoint="predict",status="499"} 1.0'
        in requests.get(metrics, timeout=20).text
    )


LIMIT = "a request may have 65,536 bytes (serve.max_body_bytes); ask for fewer tasks at once"


def test_a_body_over_the_limit_is_refused_in_json_with_the_setting(port: int) -> None:
    chunk = b"4000\r\n%b\r\n" % bytes(2**14)
    for sent in (
        b"Content-Length: 65537\r\n\r\n" + bytes(65537),
        b"Content-Length: 10000000000\r\n\r\n",
        b"Expect: 100-continue\r\nContent-Length: 10000000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + 5 * chunk + b"0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + 8 * chunk,
    ):
        head = b"POST /predict HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        status, headers, body = raw(port, head + sent)
        assert (status, headers["Content-Type"]) == (413, "application/json"), sent[:40]
        assert json.loads(body) == {"error": LIMIT}


def test_a_body_of_the_limit_is_read(port: int) -> None:
    body = b'{"tasks": []' + b" " * (2**16 - 13) + b"}"
    answer = requests.post(f"http://127.0.0.1:{port}/predict", data=body, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()) == (200, {"results": []})


def test_what_is_no_http_is_refused_in_json(port: int) -> None:
    for sent, status in (
        (b"no http\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n", 400),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /health HTTP/1.1\r\nX: ".ljust(2**18, b"x"), 431),
    ):
        found, headers, body = raw(port, sent)
        assert (found, headers["Content-Type"]) == (status, "application/json"), sent[:40]
        assert json.loads(body)["error"]
        assert headers["Server"] == "mad"


def test_a_secret_in_an_address_stays_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("the inner workings")

    with caplog.at_level(logging.DEBUG), running(broken, SERVE) as port:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("POST", f"/webhook/{SECRET.replace(' ', '-')}")
        answer = connection.getresponse()
        assert (answer.status, set(json.loads(answer.read()))) == (500, {"error"})
        connection.close()
    assert "Exception while serving a request" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_webhook_does_not_wait_for_a_database_that_is_locked(world: Any, port: int) -> None:
    with closing(sqlite3.connect(world.root / "mad.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for path in ("webhook", "webhook", "train"):
            answer = requests.post(f"http://127.0.0.1:{port}/{path}", json=WEBHOOK, timeout=PATIENCE_S)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        other.execute("ROLLBACK")
    wait_for(world.store.remote.take_pull_wish)
