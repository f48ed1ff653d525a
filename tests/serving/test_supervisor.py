"""What keeps the processes of `mad serve` up, and how it ends them."""

import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from mad_backend.errors import MadError
from mad_backend.serving.model_keeper import Patience
from mad_backend.serving.supervisor import Supervisor, WebWork
from tests.served_world import World
from tests.serving.idle_worker import WORK
from tests.serving.kept_targets import ROOT, until

UP = "the server is up"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the supervisor makes its folder; children find this package."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    return tmp_path / "t"


@pytest.fixture
def supervise(world: World, folders: Path) -> Iterator[Callable[..., None]]:
    """Runs a supervisor whose web worker has a job, of a project without a version."""
    settings = world.settings.model_copy(update={"database": f"sqlite:///{world.root}/empty.sqlite3"})

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run(job: str = "", patience: Patience | None = None) -> None:
            Supervisor(settings, listener, WebWork(WORK, lambda _: job), patience).run(UP)

        yield run
    assert not list(folders.iterdir())


def signals(number: signal.Signals, is_due: Callable[[], bool], times: int = 1) -> Thread:
    """Sends a signal to this process as soon as `is_due`, and again a moment later."""

    def send() -> None:
        until(is_due)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    thread = Thread(target=send)
    thread.start()
    return thread


def test_ctrl_c_ends_it_without_an_error(
    supervise: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sender = signals(signal.SIGINT, lambda: UP in caplog.messages)
    supervise()
    sender.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_ends_it_at_once(
    supervise: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sender = signals(signal.SIGTERM, lambda: UP in caplog.messages, times=2)
    began = time.monotonic()
    supervise("deaf")
    assert time.monotonic() - began < 8
    sender.join()


def test_a_worker_that_does_not_come_up_is_the_end_and_its_reason_is_given(
    supervise: Callable[..., None],
) -> None:
    with pytest.raises(MadError, match="no web worker comes up: it is told to refuse"):
        supervise("refuse")


def test_a_worker_that_dies_again_and_again_is_started_again_and_again(
    supervise: Callable[..., None], tmp_path: Path
) -> None:
    started = tmp_path / "started"
    started.touch()
    sender = signals(signal.SIGTERM, lambda: len(started.read_text().splitlines()) >= 3)
    supervise(str(started), Patience(pauses_s=(0, 0.1)))
    sender.join()
    assert len(set(started.read_text().splitlines())) >= 3


def test_a_folder_whose_name_is_too_long_for_sockets_is_refused(
    supervise: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(MadError, match="set TMPDIR"):
        supervise()
    assert not list(long.iterdir())
