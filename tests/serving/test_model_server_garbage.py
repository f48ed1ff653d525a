"""What either side of the model's socket says to one that sends no message of ours."""

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mad_backend.serving.model_client import ModelConnection, ModelGoneError
from mad_backend.serving.wire import ANSWER_HEADER, FRAME_HEADER, Kind, greeting
from tests.serving.gated_model import GatedModel, are_answers, ask, frame, frames_of, serving


def header(mark: bytes = b"MAD1", *, id_size: int = 1, shape: tuple[int, int] = (1, 1)) -> bytes:
    return FRAME_HEADER.pack(mark, 0, id_size, 0, *shape, *shape)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xa5" * 1000,
        header(b"MAD2"),
        header(shape=(2**32 - 1, 2**32 - 1)),
        header(shape=(0, 5)),
        header(shape=(33, 1)),
        header(id_size=2**32 - 1),
        header() + b"\xff\0\0\0",
    ],
)
def test_who_sends_something_else_is_turned_away_and_others_are_served(
    model: GatedModel, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    model.gate.set()
    with serving(model) as served, ExitStack() as opened:
        stranger = opened.enter_context(socket.socket(socket.AF_UNIX))
        stranger.connect(str(served.path))
        stranger.settimeout(20)
        assert len(stranger.recv(100)) == ANSWER_HEADER.size
        stranger.sendall(sent)
        with suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
        frames = frames_of("a", 3)
        are_answers(ask(served.path, frames), frames)
    assert "a connection is closed: " in caplog.text
    assert model.asked == ["a/0", "a/1", "a/2"]


@pytest.mark.parametrize("sent", [header()[:7], header(), header() + b"x\0", header() + b"x\0\0\0"])
def test_who_ends_in_the_middle_of_something_is_forgotten(model: GatedModel, sent: bytes) -> None:
    model.gate.set()
    with serving(model) as served:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(served.path))
            stranger.sendall(sent)
            served.until_connected(1)
            stranger.shutdown(socket.SHUT_WR)
            served.until_connected(0)
        are_answers(ask(served.path, [frame("a")]), [frame("a")])


@contextmanager
def saying(*messages: bytes) -> Iterator[Path]:
    """Another server, which says this to one client and hangs up."""
    with tempfile.TemporaryDirectory(prefix="m") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"".join(messages))
                connection.recv(100_000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Path(folder) / "s"
        thread.join(20)
        assert not thread.is_alive()


READY = greeting(Kind.READY, 32)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        ANSWER_HEADER.pack(b"MAD1", Kind.MAP, 5, 3),
        ANSWER_HEADER.pack(b"MAD1", Kind.MAP, 2**32 - 1, 2**32 - 1),
        ANSWER_HEADER.pack(b"MAD1", Kind.ERROR, 2**32 - 1, 0),
        ANSWER_HEADER.pack(b"MAD1", 9, 0, 0),
        READY,
        ANSWER_HEADER.pack(b"MAD1", Kind.MAP, 3, 5) + b"only some",
        b"",
    ],
)
def test_a_server_that_answers_something_else_is_gone_for_the_client(answer: bytes) -> None:
    with saying(READY, answer) as path, ModelConnection(path) as connection, pytest.raises(ModelGoneError):
        connection.predict([frame("a")])


def test_a_connection_is_made_only_where_a_server_takes_it(model: GatedModel, tmp_path: Path) -> None:
    with pytest.raises(ModelGoneError, match="No such file"):
        ModelConnection(tmp_path / "none")
    with saying(struct.pack("<16s", b"something else")) as path, pytest.raises(ModelGoneError, match="READY"):
        ModelConnection(path)
    with tempfile.TemporaryDirectory(prefix="m") as folder, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/s")
        silent.listen(0)
        with socket.socket(socket.AF_UNIX) as only:
            only.connect(f"{folder}/s")
            for _ in range(2):  # the first waits in the queue, the second for a place in it
                with pytest.raises(ModelGoneError):
                    ModelConnection(Path(folder) / "s", connect_timeout_s=0.1)
