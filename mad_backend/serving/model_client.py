"""One request's connection to the process that owns the model."""

import math
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import AbandonedError, BusyError, MadError, ModelError
from mad_backend.serving.targets import IsAbandoned, never
from mad_backend.serving.wire import (
    ANSWER_HEADER,
    Body,
    Kind,
    MessageReader,
    MessageWriter,
    WireError,
    frame_fault,
    frame_parts,
    make_unblocking,
    parse_answer,
)

_ASK_S: Final = 0.2
"""How often the caller is asked whether it still waits."""
_RETRY_S: Final = 0.01


class ModelGoneError(MadError):
    """Raised when the process that owns the model is no longer there; that of another generation may answer."""


class ModelConnection:
    """A context manager for one request, used by one thread.

    Once it is made, a server that drains waits for its end. Raises ModelGoneError when nobody answers at `path`.
    """

    def __init__(self, path: Path, connect_timeout_s: float = 5.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reader = MessageReader(ANSWER_HEADER.size, self._body_size)
        self._due: tuple[int, int] | None = None
        try:
            kind, number = self._greeting(path, connect_timeout_s)
        except (OSError, WireError) as error:
            self._socket.close()
            raise _gone(error) from error
        self._max_side = number if kind is Kind.READY else 0
        self._retry_after_s = number if kind is Kind.BUSY else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def predict(
        self, frames: Sequence[Frame], is_abandoned: IsAbandoned = never
    ) -> list[LabelMap | MadError]:
        """As `HeldTarget.predict`. Raises BusyError, AbandonedError, ModelGoneError.

        After any of these, the connection is closed and answers nothing more.
        """
        if self._retry_after_s:
            raise BusyError(
                f"as many requests as may wait for the target model do; ask again in {self._retry_after_s} s",
                self._retry_after_s,
            )
        try:
            return self._with_faults(frames, is_abandoned)
        except (OSError, WireError) as error:
            self.close()
            raise _gone(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frames of this connection that wait for the model are dropped there. Safe to repeat."""
        self._socket.close()

    def _greeting(self, path: Path, timeout_s: float) -> tuple[Kind, int]:
        """Waits until the server has taken the connection, or has said that it is busy."""
        until = time.monotonic() + timeout_s
        self._socket.settimeout(timeout_s)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except BlockingIOError:  # more are connecting than the listening socket lets wait
                if time.monotonic() >= until:
                    raise
                time.sleep(_RETRY_S)
        make_unblocking(self._socket)
        events = select.poll()
        events.register(self._socket, select.POLLIN)
        while (message := self._reader.read(self._socket)) is None:
            left = until - time.monotonic()
            if left <= 0 or not events.poll(left * 1000):
                raise TimeoutError(f"no greeting within {timeout_s:g} s")
        kind, number, _ = parse_answer(message[0], None)
        return kind, number

    def _with_faults(self, frames: Sequence[Frame], is_abandoned: IsAbandoned) -> list[LabelMap | MadError]:
        """Sends the frames that can be sent; the others' answers are why they cannot."""
        faults = [frame_fault(frame, self._max_side) for frame in frames]
        good = [frame for frame, fault in zip(frames, faults, strict=True) if fault is None]
        arrived = iter(self._exchange(good, is_abandoned))
        return [
            next(arrived) if fault is None else ModelError(f'image "{frame.image_id:.200}": {fault}')
            for frame, fault in zip(frames, faults, strict=True)
        ]

    def _body_size(self, header: bytes) -> int:
        return parse_answer(header, self._due)[2]

    def _exchange(self, frames: Sequence[Frame], is_abandoned: IsAbandoned) -> list[LabelMap | MadError]:
        """Sends frames as the server takes them and reads answers as they come, so that neither waits for the other."""
        unsent = deque(frames)
        answers: list[LabelMap | MadError] = []
        writer = MessageWriter()
        events = select.poll()
        ask_at = -math.inf
        while True:
            if time.monotonic() >= ask_at:
                if is_abandoned():
                    raise AbandonedError("nobody waits for the answer any more")
                ask_at = time.monotonic() + _ASK_S
            if len(answers) == len(frames):
                return answers
            writer.send(self._socket)
            while writer.is_empty and unsent:
                writer.add(frame_parts(unsent.popleft(), following=len(unsent)))
                writer.send(self._socket)
            events.register(self._socket, select.POLLIN | (0 if writer.is_empty else select.POLLOUT))
            events.poll(max(0.0, ask_at - time.monotonic()) * 1000)
            self._read(frames, answers)

    def _read(self, frames: Sequence[Frame], answers: list[LabelMap | MadError]) -> None:
        """Appends the answers that have come."""
        while len(answers) < len(frames):
            height, width = frames[len(answers)].rgb.shape[:2]
            self._due = (height, width)
            message = self._reader.read(self._socket)
            if message is None:
                return
            answers.append(_answer(message[0], message[1], self._due))


def _answer(header: bytes, body: Body, shape: tuple[int, int]) -> LabelMap | MadError:
    kind, _, _ = parse_answer(header, shape)
    return body.reshape(shape) if kind is Kind.MAP else ModelError(body.tobytes().decode("utf-8", "replace"))


def _gone(error: Exception) -> ModelGoneError:
    return ModelGoneError(f"the process of the target model does not answer: {error}; ask again")
