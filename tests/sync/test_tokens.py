"""Tokens: drawn, replaced as they expire, shared, and shown to nobody."""

import base64
import json
import logging
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from mad_backend.errors import LabelStudioError
from sync.client import LabelStudioClient
from tests.conftest import RunningLabelStudio
from tests.sync.json_server import answering

ROOT = Path(__file__).parents[2]


class TokenServer:
    """Gives access tokens for the refresh token `PAT`, each good for `uses` requests; 401 afterwards."""

    def __init__(self, uses: int = 10**9, life_s: int = 300) -> None:
        self.drawn = 0
        self.uses = uses
        self.life_s = life_s
        self.left: dict[str, int] = {}
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, object]:
        with self._lock:
            if path == "/api/token/refresh/":
                if token != "None" or json.loads(body) != {"refresh": PAT}:
                    return 401, {"detail": f"Token is invalid {json.loads(body)['refresh']}"}
                self.drawn += 1
                access = jwt({"iat": 1000, "exp": 1000 + self.life_s, "n": self.drawn})
                self.left[f"Bearer {access}"] = self.uses
                return 200, {"access": access}
            if self.left.get(token, 0) <= 0:
                return 401, {"detail": f"no longer valid: {token}"}
            self.left[token] -= 1
            return 200, {"id": 1, "email": "a@b", "task_count": 1}


def jwt(claims: dict[str, int]) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts) + ".sig"


PAT = jwt({"iat": 1, "exp": 2})


def test_an_access_token_that_expires_between_calls_is_drawn_anew_for_writes_too() -> None:
    behaviour = TokenServer(uses=3)
    with answering(behaviour.answer) as url:
        client = LabelStudioClient(url, PAT, backoff_s=0.01)
        for _ in range(10):
            assert client.import_tasks(1, [{}]) == 1
    assert behaviour.drawn == 4


def test_an_access_token_is_replaced_before_it_expires_by_the_servers_own_account() -> None:
    behaviour = TokenServer(life_s=0)
    with answering(behaviour.answer) as url:
        client = LabelStudioClient(url, PAT)
        client.current_user()
        client.current_user()
    assert behaviour.drawn == 2


def test_threads_share_one_access_token() -> None:
    behaviour = TokenServer()
    with answering(behaviour.answer) as url, ThreadPoolExecutor(8) as pool:
        client = LabelStudioClient(url, PAT)
        assert len(list(pool.map(lambda _: client.current_user(), range(32)))) == 32
    assert behaviour.drawn == 1


def test_processes_share_a_personal_token_of_a_real_server(label_studio: RunningLabelStudio) -> None:
    answer = requests.post(
        f"{label_studio.server.url}/api/token/",
        headers={"Authorization": f"Token {label_studio.tokens[2]}"},
        timeout=30,
    )
    code = """
import sys
from sync.client import LabelStudioClient
client = LabelStudioClient(*sys.stdin.read().split())
print(*(client.current_user().email for _ in range(5)))
"""
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        said, _ = process.communicate(f"{label_studio.server.url} {answer.json()['token']}", timeout=60)
        assert set(said.split()) == {label_studio.emails[2]}


@pytest.mark.parametrize("token", ["5ec2e7" * 7, PAT])
def test_a_token_is_not_in_errors_their_tracebacks_urls_or_debug_logs(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    with answering(TokenServer(uses=0).answer) as url:
        client = LabelStudioClient(url, token, backoff_s=0.01)
        texts = [told(client.current_user), told(lambda: client.download("/data/x", 10))]
        texts.append(told(lambda: LabelStudioClient(url, token[:-1] + "0", backoff_s=0.01).current_user()))
    texts.append(told(lambda: client.import_tasks(1, [{}])))  # nobody listens there any more
    texts += [repr(client), repr(vars(client)), caplog.text]
    assert "/api/current-user/whoami" in caplog.text
    for secret in (token, token[:-1] + "0", "Bearer ey"):
        assert not [text for text in texts if secret in text]


def told(work: object) -> str:
    """Everything that a traceback shows, with the values of all variables but those of this file."""
    with pytest.raises(LabelStudioError) as caught:
        work()  # type: ignore[operator]
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [str(frame.locals) for frame in shown.stack if frame.filename != __file__]
    assert frames
    return str(caught.value) + "".join(frames)
