"""What Prometheus reads: counts of requests and tasks, and what is served, without paths and ids."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from mad_backend.serving.target_service import TargetService
from mad_backend.settings import Secrets
from mad_backend.web.app import create_app
from tests.web.test_ml_backend import SETUP, predict_body

TWO_WORKERS = """
import os
from mad_backend.web.metrics import WebMetrics
class Nothing:
    def collect(self):
        return []
other = os.fork()
if other:
    assert os.waitpid(other, 0)[1] == 0
metrics = WebMetrics(Nothing())
metrics.request("health", 200, 0.001)
metrics.asked(5)
metrics.in_flight().__enter__()
if other:
    print(metrics.text().decode())
"""


def read(text: str) -> dict[str, float]:
    """Sample with its labels -> value."""
    return {
        f"{s.name}{sorted(s.labels.items()) if s.labels else ''}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


@pytest.fixture
def client(world: Any, service: TargetService) -> FlaskClient:
    return create_app(service, world.store, world.settings, Secrets()).test_client()


def test_requests_and_tasks_are_counted(world: Any, client: FlaskClient) -> None:
    client.get("/health")
    client.get("/health")
    client.post("/setup", json=SETUP)
    client.get("/a/path/with/311")
    client.post("/predict", data=b"{")
    tasks = [world.task("pool/0"), world.task("pool/1"), {"id": 311, "data": {}}]
    assert client.post("/predict", json=predict_body(tasks)).status_code == 200
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    found = read(answer.text)
    assert {k: v for k, v in found.items() if k.startswith("mad_http_requests_total")} == {
        "mad_http_requests_total[('endpoint', 'health'), ('status', '200')]": 2,
        "mad_http_requests_total[('endpoint', 'setup'), ('status', '200')]": 1,
        "mad_http_requests_total[('endpoint', 'none'), ('status', '404')]": 1,
        "mad_http_requests_total[('endpoint', 'predict'), ('status', '400')]": 1,
        "mad_http_requests_total[('endpoint', 'predict'), ('status', '200')]": 1,
    }
    assert found["mad_http_request_seconds_count[('endpoint', 'predict')]"] == 2
    counts = [found[f"mad_tasks_{what}_total"] for what in ("asked", "answered", "failed")]
    assert counts == [3, 2, 1]
    assert found["mad_predict_in_flight"] == found["mad_predict_busy_total"] == 0
    assert not re.search(r"\b311\b", answer.text), "neither a path nor a task's number is told"


def test_what_is_served_is_told_and_since_when(world: Any, client: FlaskClient) -> None:
    version = world.store.versions.get("scenes@0")
    found = read(client.get("/metrics").text)
    assert found["mad_target_info[('target', 'scenes'), ('version', 'scenes@0')]"] == 1
    assert found["mad_target_promoted_timestamp_seconds"] == version.promoted_at.timestamp()
    assert found["mad_target_state[('state', 'ready')]"] == 1
    assert found["mad_target_state[('state', 'failed')]"] == 0
    world.store.versions.promote("scenes@1", version.created_at, "test")
    infos = [k for k in read(client.get("/metrics").text) if k.startswith("mad_target_info")]
    assert infos == ["mad_target_info[('target', 'scenes'), ('version', 'scenes@1')]"]


def test_without_a_database_the_counts_are_still_told(
    world: Any, open_service: Callable[..., TargetService]
) -> None:
    client = create_app(open_service(), world.store, world.settings, Secrets()).test_client()
    world.store.close()
    for path in world.root.glob("mad.sqlite3*"):
        path.write_bytes(b"no database " * 1000)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert "mad_target_info" not in answer.text
    assert (
        read(client.get("/metrics").text)["mad_http_request_seconds_count[('endpoint', 'prometheus')]"] == 1
    )


def test_any_of_several_processes_answers_for_all(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", TWO_WORKERS]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    found = read(told)
    assert found["mad_http_requests_total[('endpoint', 'health'), ('status', '200')]"] == 2
    assert found["mad_tasks_asked_total"] == 10
    assert found["mad_http_request_seconds_count[('endpoint', 'health')]"] == 2
