"""Whatever is sent, the answer is no error of ours, and one result for each task.

MAD_TEST_FUZZ=20 tries twenty times as much.
"""

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from werkzeug.test import TestResponse

from mad_backend.serving.target_service import TargetService
from mad_backend.settings import Secrets
from mad_backend.web.app import create_app
from tests.web.record import FAKE_BASIC, PASSWORD
from tests.web.test_contract import RECORDED

TIMES = int(os.environ.get("MAD_TEST_FUZZ", "1"))
PREDICT = [call["body"] for name, call in RECORDED.items() if name.startswith("predict")]
ROUTES = [
    "/health", "/setup", "/predict", "/webhook", "/webhook/s3cret", "/versions", "/train", "/metrics", "/pictures/x",
    "/pictures/0123456789abcdef01234567-a.jpg?s=x", "/", "//", "/health/", "/predict/..",
]  # fmt: skip
HEADERS = [
    "Authorization", "Content-Type", "Content-Encoding", "X-MAD-Secret", "Origin", "Range", "If-None-Match", "Accept",
    "If-Modified-Since", "X-Forwarded-For", "X-HTTP-Method-Override", "Cookie",
]  # fmt: skip


def tried(examples: int) -> Any:
    """Every run tries the same, so that a failure is not a matter of luck."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def unforeseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A fault that one task's answer hid would be in the log with its traceback."""
    yield
    assert not [record for record in caplog.get_records("call") if record.exc_info]


@pytest.fixture
def client(world: Any, service: TargetService) -> FlaskClient:
    secrets = Secrets(serve_password=SecretStr(PASSWORD))
    return create_app(service, world.store, world.settings, secrets).test_client()


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def check(answer: TestResponse) -> Any:
    """Every answer, errors included, is JSON, but for pictures and metrics."""
    assert answer.status_code < 500, answer.text
    if answer.mimetype in ("image/jpeg", "text/plain") or not answer.data:
        return None
    assert answer.mimetype == "application/json"
    return json.loads(answer.data, parse_constant=refuse)


header_values = st.one_of(
    st.just(FAKE_BASIC),
    st.sampled_from(["bytes=0-", "bytes=9-1,-", 'application/json; charset="', "gzip", "Basic Og==", "*", "null"]),
    st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=30),
)  # fmt: skip
paths = st.one_of(st.sampled_from(ROUTES), st.text(max_size=20).map(lambda text: "/" + text.lstrip("/")))
methods = st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
bodies = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [b"[" * 100_000, b'{"tasks":' * 500, b"1" * 5000, b"NaN", b'"\\ud800"', b"\xff\xfe{\x00}\x00"]
    ),
    st.sampled_from(list(RECORDED.values())).map(lambda call: json.dumps(call["body"]).encode()),
)


@tried(250)
@given(
    methods,
    paths,
    st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=4),
    bodies,
    st.booleans(),
)
def test_no_request_is_too_strange(
    client: FlaskClient, method: str, path: str, headers: dict[str, str], body: bytes, is_known: bool
) -> None:
    sent = {**headers, "Authorization": FAKE_BASIC} if is_known else headers
    check(client.open(path, method=method, headers=sent, data=body))


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.builds(nested, st.sampled_from([1, 700])),
    st.sampled_from(
        [
            10**4000,
            "\ud800",
            "pool/0",
            "x" * 5000,
            "http://127.0.0.1/a.png",
            "file:///etc/passwd",
        ]
    ),
)
values = st.recursive(
    odd_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, found: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the parts of a JSON value are, those at great depth aside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = inner if len(found) < 12 else ()
    return [found, *(place for key, part in inner for place in places(part, (*found, key)))]


@st.composite
def requests_for_predictions(draw: st.DrawFn) -> dict[str, Any]:
    """A recorded one with a few parts replaced, left out or there twice."""
    body = copy.deepcopy(draw(st.sampled_from(PREDICT)))
    for _ in range(draw(st.integers(1, 4))):
        *way, last = draw(st.sampled_from(places(body)[1:] or [("tasks",)]))
        holder = body
        for key in way:
            holder = holder[key]
        match draw(st.sampled_from(["replace", "leave out", "repeat"])):
            case "replace":
                holder[last] = draw(values)
            case "leave out" if isinstance(holder, dict):
                holder.pop(last, None)
            case "repeat" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
    return body


@tried(250)
@given(requests_for_predictions(), st.booleans())
def test_every_task_has_its_result(
    world: Any, client: FlaskClient, body: dict[str, Any], is_ours: bool
) -> None:
    if is_ours:
        for task in body.get("tasks") or [] if isinstance(body.get("tasks"), list) else []:
            if isinstance(task, dict) and isinstance(task.get("data"), dict):
                task["data"] |= world.task("pool/0")["data"]
    answer = client.post("/predict", data=json.dumps(body), headers={"Authorization": FAKE_BASIC})
    given_back = check(answer)
    if isinstance(body.get("tasks"), list):
        assert answer.status_code == 200
        assert len(given_back["results"]) == len(body["tasks"])
        assert all(isinstance(result["result"], list) for result in given_back["results"])
    else:
        assert answer.status_code == 400


CONFIG = PREDICT[0]["label_config"]
KINDS = ("BitmaskLabels", "BrushLabels", "PolygonLabels", "RectangleLabels")
pieces = st.tuples(st.integers(0, len(CONFIG)), st.integers(0, 40), st.text(max_size=10))


@tried(100)
@given(st.sampled_from(KINDS), st.lists(pieces, max_size=2), st.none() | st.text(max_size=50))
def test_no_label_configuration_is_too_strange(
    world: Any, client: FlaskClient, kind: str, changes: list[tuple[int, int, str]], other: str | None
) -> None:
    config = CONFIG
    for start, length, text in changes:
        config = config[:start] + text + config[start + length :]
    sent = config.replace("BitmaskLabels", kind) if other is None else other
    body = {"tasks": [world.task("pool/0")] * 2, "label_config": sent, "params": {}}
    answer = client.post("/predict", data=json.dumps(body), headers={"Authorization": FAKE_BASIC})
    assert answer.status_code == 200
    assert len(check(answer)["results"]) == 2
