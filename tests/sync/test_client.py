"""The client against a real server: tokens, errors, the calls that push and pull do not show."""

import contextlib
import logging
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from mad_backend.errors import DemoError, LabelStudioError
from mad_backend.label_studio.label_config import rating_config
from sync.client import LabelStudioClient
from sync.embedded import EmbeddedLabelStudio
from sync.webhooks import create_webhook
from tests.conftest import EXECUTABLE, RunningLabelStudio
from tests.sync.json_server import answering


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def in_turn(*answers: tuple[int, object]) -> Iterator[tuple[str, list[str]]]:
    """A server giving `answers` in turn, the last one for ever; yields its URL and the requests."""
    seen: list[str] = []

    def decide(method: str, path: str, token: str, _body: bytes) -> tuple[int, object]:
        answer = answers[min(len(seen), len(answers) - 1)]
        seen.append(f"{method} {path} {token}")
        return answer

    with answering(decide) as url:
        yield url, seen


def test_server_that_is_down_is_named_with_what_to_check() -> None:
    client = LabelStudioClient(f"http://127.0.0.1:{free_port()}", "secret-token", backoff_s=0.01)
    with pytest.raises(
        LabelStudioError, match=r"checking the token.*did not answer.*check that it runs"
    ) as caught:
        client.current_user()
    assert caught.value.status is None


def test_reads_are_tried_again_after_a_server_error_and_writes_are_not() -> None:
    with in_turn((502, {}), (503, {}), (200, {"release": "1.23.2"})) as (url, seen):
        assert LabelStudioClient(url, "a-token", backoff_s=0.01).version() == "1.23.2"
        assert len(seen) == 3
    with in_turn((502, {"detail": "boom"})) as (url, seen):
        with pytest.raises(LabelStudioError, match=r"502.*boom") as caught:
            LabelStudioClient(url, "a-token", backoff_s=0.01).import_tasks(1, [{}])
        assert len(seen) == 1
        assert caught.value.status == 502


def test_the_token_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with in_turn((400, {"detail": "bad secret-token"})) as (url, seen):
        client = LabelStudioClient(url, "secret-token", backoff_s=0.01)
        with pytest.raises(LabelStudioError) as caught:
            client.current_user()
        assert seen == ["GET /api/current-user/whoami Token secret-token"]
    assert "secret-token" not in repr(client) + str(caught.value) + caplog.text
    assert "secret-token" not in "".join(
        repr(vars(part)) for part in vars(client).values() if hasattr(part, "url")
    )


def test_a_private_address_names_the_settings_of_the_server() -> None:
    blocked = {"detail": "URL resolves to a reserved network address (block: 127.0.0.0/8)"}
    with (
        in_turn((403, blocked)) as (url, _),
        pytest.raises(LabelStudioError, match="LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false"),
    ):
        create_webhook(LabelStudioClient(url, "a-token"), 1, "http://127.0.0.1:1/webhook", None)


def test_legacy_tokens_switched_off_are_told_from_a_wrong_token() -> None:
    off = {"detail": "Authentication token no longer valid: legacy token authentication has been disabled"}
    with in_turn((401, off)) as (url, _), pytest.raises(LabelStudioError, match="personal access token"):
        LabelStudioClient(url, "a-token").current_user()


def test_a_moved_server_is_an_error_that_says_where_to() -> None:
    with in_turn((301, {})) as (url, _), pytest.raises(LabelStudioError, match="set the address"):
        LabelStudioClient(url, "a-token").current_user()


def test_an_expired_access_token_is_drawn_anew_by_itself() -> None:
    answers: tuple[tuple[int, object], ...] = (
        (200, {"access": "one"}),
        (401, {}),
        (200, {"access": "two"}),
        (200, {"id": 1, "email": "a@b"}),
    )
    with in_turn(*answers) as (url, seen):
        assert LabelStudioClient(url, "eyA.eyB.sig").current_user().email == "a@b"
    assert [s.split(" ", 2)[2] for s in seen] == ["None", "Bearer one", "None", "Bearer two"]


def test_wrong_token_is_refused_with_what_to_do(label_studio: RunningLabelStudio) -> None:
    with pytest.raises(LabelStudioError, match="token is wrong or revoked") as caught:
        LabelStudioClient(label_studio.server.url, "0" * 40).current_user()
    assert caught.value.status == 401


def test_a_personal_access_token_works_like_a_legacy_one(label_studio: RunningLabelStudio) -> None:
    answer = requests.post(
        f"{label_studio.server.url}/api/token/",
        headers={"Authorization": f"Token {label_studio.tokens[3]}"},
        timeout=30,
    )
    client = LabelStudioClient(label_studio.server.url, answer.json()["token"])
    assert client.current_user().email == label_studio.emails[3]
    with pytest.raises(LabelStudioError, match="personal access token is wrong"):
        LabelStudioClient(label_studio.server.url, answer.json()["token"] + "x").current_user()


def test_users_and_version_are_known(label_studio: RunningLabelStudio) -> None:
    assert label_studio.admin.version().startswith("1.23")
    assert set(label_studio.emails) <= set(label_studio.admin.people().values())


def test_tasks_come_in_pages_and_by_time_of_change(label_studio: RunningLabelStudio) -> None:
    client = label_studio.admin
    project = client.create_project(title="paging", label_config=rating_config(), description="key-paging-1")
    data = {"image": "/x", "overlay": "/y", "legend": ""}
    client.import_tasks(project.project_id, [{"data": {**data, "item": f"i{n:04d}"}} for n in range(1005)])
    tasks = client.tasks(project.project_id)
    assert [t.item for t in tasks] == [f"i{n:04d}" for n in range(1005)]
    assert client.tasks(project.project_id, changed_since=datetime.now(UTC) + timedelta(seconds=60)) == []
    newest = max(t.updated_at for t in tasks)
    client.create_annotation(tasks[3].task_id, [])
    assert [t.item for t in client.tasks(project.project_id, changed_since=newest)] == ["i0003"]
    assert [p.project_id for p in client.projects_with("key-paging-1")] == [project.project_id]
    client.delete_project(project.project_id)
    assert client.project(project.project_id) is None


def test_the_private_server_listens_on_loopback_only_and_hides_its_secrets(
    label_studio: RunningLabelStudio,
) -> None:
    server = label_studio.server
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    ours = [line.split()[3] for line in listening.splitlines() if f"pid={server.pid}," in line]
    assert ours == [server.url.removeprefix("http://")]
    credentials = server.log_path.parent / "credentials.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert server.token not in server.log_path.read_text() + repr(server)
    assert server.create_user(label_studio.emails[0], label_studio.password) == label_studio.tokens[0]


def test_a_second_server_on_the_same_folder_is_refused(label_studio: RunningLabelStudio) -> None:
    with pytest.raises(DemoError, match="already runs"):
        EmbeddedLabelStudio(label_studio.server.log_path.parent, EXECUTABLE).start()


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DemoError, match=f"port {port}"):
            EmbeddedLabelStudio(tmp_path, Path(sys.executable), port).start()


def test_a_server_that_dies_at_once_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = tmp_path / "label-studio"
    broken.write_text("#!/bin/sh\necho no such thing as a free lunch\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(DemoError, match=r"status 3(.|\n)*free lunch"):
        EmbeddedLabelStudio(tmp_path / "root", broken).start()


def test_a_missing_executable_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"label-studio==1\.23\.2"):
        EmbeddedLabelStudio(tmp_path, tmp_path / "absent").start()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help for this is Linux only")
def test_the_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    slow = tmp_path / "label-studio"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 100\n")
    slow.chmod(0o755)
    code = f"""
from pathlib import Path
from sync.embedded import EmbeddedLabelStudio
EmbeddedLabelStudio(Path({str(tmp_path / "root")!r}), Path({str(slow)!r})).start()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() != "")
    parent.kill()
    parent.wait()
    child = int(pid_file.read_text())
    wait_until(lambda: not is_running(child))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
