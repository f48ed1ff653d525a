"""Who is let in: with the password, with a webhook's secret, or without both where none is set."""

import logging
from base64 import b64encode
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from pydantic import SecretStr

from mad_backend.serving.target_service import TargetService
from mad_backend.settings import Secrets, ServeSettings
from mad_backend.web.app import create_app
from mad_backend.web.server import warn_if_open
from tests.web.running import PATIENCE_S, running
from tests.web.test_ml_backend import SECRET, SETUP, WEBHOOK

PASSWORD = "pässw0rd: with a colon"
CLOSED = (
    ("GET", "/health"), ("POST", "/setup"), ("POST", "/predict"), ("GET", "/versions"), ("POST", "/train"),
    ("GET", "/metrics"), ("GET", "/nothing"), ("DELETE", "/health"), ("OPTIONS", "/predict"),
)  # fmt: skip


def client_of(
    world: Any, service: TargetService, password: str | None = PASSWORD, secret: str | None = None
) -> FlaskClient:
    secrets = Secrets(
        serve_password=None if password is None else SecretStr(password),
        webhook_secret=None if secret is None else SecretStr(secret),
    )
    return create_app(service, world.store, world.settings, secrets).test_client()


def basic(credentials: str, encoding: str = "utf-8") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(credentials.encode(encoding)).decode()}


RIGHT = basic(f"mad:{PASSWORD}")


def test_every_route_but_pictures_and_webhooks_wants_the_password(world: Any, service: TargetService) -> None:
    client = client_of(world, service)
    for method, path in CLOSED:
        answer = client.open(path, method=method, json=SETUP)
        assert (answer.status_code, answer.is_json) == (401, True), path
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="mad", charset="UTF-8"'
        assert client.open(path, method=method, json=SETUP, headers=RIGHT).status_code != 401, path
    assert client.get("/pictures/0123456789abcdef01234567-a.jpg").status_code == 404


def test_wrong_or_malformed_credentials_are_refused(world: Any, service: TargetService) -> None:
    client = client_of(world, service)
    wrong = (
        ":", "mad:", f":{PASSWORD}", f"mad{PASSWORD}", f"Mad:{PASSWORD}", f"mad:{PASSWORD} ", f" mad:{PASSWORD}",
        "mad:p\u00e4ssw0rd",
    )  # fmt: skip
    malformed = (
        "Basic", "Basic ", "Basic !!!", "Basic bWFk", "Basic /w==", "Basic \xe4", "Bearer x", 'Digest username="mad"',
    )  # fmt: skip
    for header in (*malformed, *(basic(credentials)["Authorization"] for credentials in wrong)):
        answer = client.get("/health", headers={"Authorization": header})
        assert (answer.status_code, answer.is_json) == (401, True), header


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_password_beyond_ascii_is_taken_as_browsers_and_as_label_studio_send_it(
    world: Any, service: TargetService, encoding: str
) -> None:
    headers = basic(f"mad:{PASSWORD}", encoding)
    headers["Authorization"] = headers["Authorization"].replace("Basic", "bASIC")
    assert client_of(world, service).get("/health", headers=headers).status_code == 200


def test_letters_that_label_studio_cannot_send_stand_for_no_others(
    world: Any, service: TargetService
) -> None:
    client = client_of(world, service, "\u79d8\u5bc6")
    assert client.get("/health", headers=basic("mad:\u79d8\u5bc6")).status_code == 200
    assert client.get("/health", headers=basic("mad:??")).status_code == 401


def test_label_studios_own_http_library_gets_in(world: Any, service: TargetService) -> None:
    app = client_of(world, service).application
    with running(app, world.settings.serve) as port:
        url = f"http://127.0.0.1:{port}/setup"
        right = requests.post(url, json=SETUP, auth=("mad", PASSWORD), timeout=PATIENCE_S)
        assert right.json() == {"model_version": "scenes@0"}
        assert requests.post(url, json=SETUP, auth=("mad", "x"), timeout=PATIENCE_S).status_code == 401


def test_webhooks_come_in_with_the_secret_or_the_password(world: Any, service: TargetService) -> None:
    cases: list[tuple[str | None, str | None, str, dict[str, str], int]] = [
        (None, None, "/webhook", {}, 200),
        (PASSWORD, None, "/webhook", {}, 200),  # Label Studio's own webhook cannot authenticate
        (PASSWORD, None, "/webhook", basic("mad:wrong"), 200),
        (PASSWORD, SECRET, "/webhook", {}, 403),
        (PASSWORD, SECRET, "/webhook", basic("mad:wrong"), 403),
        (PASSWORD, SECRET, "/webhook", RIGHT, 200),  # as it comes from Label Studio's "start training"
        (PASSWORD, SECRET, f"/webhook/{SECRET}", {}, 200),
        (PASSWORD, SECRET, "/webhook", {"X-MAD-Secret": SECRET}, 200),
        (None, SECRET, "/webhook", RIGHT, 403),
        (None, SECRET, "/webhook", basic("mad:"), 403),
    ]
    for password, secret, path, headers, status in cases:
        client = client_of(world, service, password, secret)
        assert client.post(path, json=WEBHOOK, headers=headers).status_code == status, (path, headers)
        assert world.store.remote.take_pull_wish() is (status == 200)


def test_no_secret_is_in_logs_answers_or_representations(
    world: Any, service: TargetService, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(world, service, PASSWORD, SECRET)
    with caplog.at_level(logging.DEBUG):
        answers = [
            client.open(path, method=method, headers=headers, json=SETUP)
            for method, path in (*CLOSED, ("POST", f"/webhook/{SECRET}"), ("GET", f"/webhook/{SECRET}"))
            for headers in (RIGHT, basic(f"mad:{PASSWORD}!"))
        ]
    told = caplog.text + "".join(f"{a.headers}{a.text}" for a in answers) + repr(client.application.config)
    for hidden in (PASSWORD, SECRET, RIGHT["Authorization"][6:]):
        assert hidden not in told


@pytest.mark.parametrize(
    ("host", "password", "secret", "named"),
    [
        ("127.0.0.1", None, None, None),
        ("127.9.9.9", None, None, None),
        ("localhost", None, None, None),
        ("::1", None, None, None),
        ("0.0.0.0", PASSWORD, None, None),
        ("0.0.0.0", None, None, "set MAD_SERVE_PASSWORD, and MAD_WEBHOOK_SECRET for webhooks, or serve.host"),
        ("::", None, SECRET, "set MAD_SERVE_PASSWORD, or serve.host to 127.0.0.1"),
        ("backend.example.com", None, None, "whoever reaches backend.example.com may ask"),
    ],
)
def test_a_server_that_is_open_to_other_machines_is_warned_of_once(
    host: str, password: str | None, secret: str | None, named: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = Secrets(
        serve_password=SecretStr(password) if password else None,
        webhook_secret=SecretStr(secret) if secret else None,
    )
    warn_if_open(ServeSettings(host=host), secrets)
    assert len(caplog.records) == (named is not None)
    assert (named or "") in caplog.text
