"""How the model's process ends: told to, out of patience, with its GPU, or killed."""

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mad_backend.serving.forward import ModelLostError
from mad_backend.serving.model_client import ModelConnection, ModelGoneError
from tests.serving.gated_model import GatedModel, Served, are_answers, ask, frame, frames_of, serving, until

ROOT = Path(__file__).parents[2]


def test_who_is_connected_is_served_to_the_end_while_others_are_refused(
    model: GatedModel, threads: ThreadPoolExecutor
) -> None:
    with serving(model) as served:
        with ModelConnection(served.path) as held:
            asked = threads.submit(held.predict, frames_of("a", 20))
            until(lambda: bool(model.batches))
            served.server.drain()
            until(lambda: is_refused(served))
            model.gate.set()
            are_answers(asked.result(20), frames_of("a", 20))
            are_answers(held.predict([frame("b")]), [frame("b")])
            assert served.thread.is_alive()
        served.thread.join(20)
        assert not served.thread.is_alive()
    assert served.errors == []
    assert not [t for t in threading.enumerate() if t.name.startswith("traffic")]


def is_refused(served: Served) -> bool:
    try:
        ModelConnection(served.path).close()
    except ModelGoneError:
        return True
    return False


def test_who_has_a_connection_has_answers_however_late_it_came(
    model: GatedModel, threads: ThreadPoolExecutor
) -> None:
    model.gate.set()

    def client(number: int) -> int:
        for request in range(10**6):
            try:
                connection = ModelConnection(served.path)
            except ModelGoneError:
                return request
            with connection:
                are_answers(connection.predict([frame(f"{number}/{request}", number)]), [frame("", number)])
        raise AssertionError

    with serving(model) as served:
        clients = [threads.submit(client, number) for number in range(8)]
        until(lambda: len(model.seen) > 100)
        served.server.drain()
        assert sum(c.result(20) for c in clients) == len(model.seen)
        served.thread.join(20)
        assert not served.thread.is_alive()


def test_an_idle_server_ends_as_soon_as_it_drains(model: GatedModel) -> None:
    with serving(model) as served:
        ask_none = ModelConnection(served.path)
        ask_none.close()
        served.server.drain()
        served.thread.join(20)
        assert not served.thread.is_alive()
        served.server.drain()  # nobody is there any more to hear it


def test_patience_with_who_stays_connected_ends(model: GatedModel, threads: ThreadPoolExecutor) -> None:
    with serving(model) as served, ModelConnection(served.path) as held:
        asked = threads.submit(held.predict, frames_of("a", 20))
        until(lambda: bool(model.batches))
        served.server.drain(0.05)
        with pytest.raises(ModelGoneError):
            asked.result(20)
        model.gate.set()
        served.thread.join(20)
        assert not served.thread.is_alive()
    assert len(model.batches) == 1


def test_a_model_whose_gpu_has_failed_ends_its_server(model: GatedModel) -> None:
    model.gate.set()
    with serving(model) as served, ModelConnection(served.path) as connection:
        with pytest.raises(ModelGoneError):
            connection.predict([frame("a"), frame("lost/1")])
        served.thread.join(20)
        with pytest.raises(ModelGoneError):
            ModelConnection(served.path)
    (error,) = served.errors
    assert isinstance(error, ModelLostError)
    assert "illegal memory access" in str(error)


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A server in a process of its own that is ready."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        path = Path(folder) / "s"
        with subprocess.Popen(
            [sys.executable, "-m", "tests.serving.gated_model", str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as started:
            try:
                assert started.stdout
                assert started.stdout.readline() == "ready\n"
                yield started, path
            finally:
                started.kill()


def test_a_process_that_is_killed_in_the_middle_of_a_batch_is_gone_for_all_its_clients(
    threads: ThreadPoolExecutor,
) -> None:
    with process() as (server, path):
        asked = [threads.submit(ask, path, frames_of(name, 40, (30, 30))) for name in "ab"]
        assert server.stdout
        assert server.stdout.readline() == "begun\n"
        server.send_signal(signal.SIGKILL)
        for request in asked:
            with pytest.raises(ModelGoneError):
                request.result(20)
        with pytest.raises(ModelGoneError):
            ModelConnection(path)


def test_a_process_that_is_told_to_end_answers_first(threads: ThreadPoolExecutor) -> None:
    with process() as (server, path):
        frames = frames_of("a", 9)
        asked = threads.submit(ask, path, frames)
        assert server.stdout
        assert server.stdout.readline() == "begun\n"
        server.send_signal(signal.SIGTERM)
        are_answers(asked.result(20), frames)
        assert server.wait(20) == 0
        assert server.stdout.read().endswith("ended\n")


def test_an_idle_process_ends_when_it_is_told(threads: ThreadPoolExecutor) -> None:
    with process() as (server, path):
        ModelConnection(path).close()
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
