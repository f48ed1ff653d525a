"""What a request and the process of the model say to each other over a socket: frames one way, label maps the other.

Every message is a header of fixed size, little-endian, and a body whose size the header gives; a size is checked before
memory is taken for it. The server greets (READY or BUSY); then frames come as the client likes, and answers in the
order of the frames.
"""

import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import MadError

Part: TypeAlias = bytes | NDArray[np.uint8]
"""A stretch of a message; arrays are C-contiguous."""
Body: TypeAlias = NDArray[np.uint8]
"""(n,) uint8."""

FRAME_HEADER: Final = struct.Struct("<4s7I")
"""Mark, frames that follow at once, bytes of the image's id and address, height, width, the image's own (h, w)."""
ANSWER_HEADER: Final = struct.Struct("<4sIII")
"""Mark, `Kind`, and two numbers: see `Kind`."""
_MARK: Final = b"MAD1"
_MAX_TEXT: Final = 2**16
"""Bytes of an id, and of an address."""
_MAX_MESSAGE: Final = 4096
"""Bytes of an error's text."""
_PARTS_AT_ONCE: Final = 16
_SEND_BUFFER: Final = 2**20
"""A frame of 513 x 513 goes through without waiting; the system may grant less."""


class WireError(MadError):
    """Raised when the other side sends what is no message of ours."""


class Kind(IntEnum):
    """What an answer is, and what its two numbers mean."""

    READY = 1
    """Longest side that a frame may have, 0."""
    BUSY = 2
    """Seconds after which to come again, 0."""
    MAP = 3
    """Height, width; the body is the label map."""
    ERROR = 4
    """Bytes of the body, 0; the body is why there is no label map, in UTF-8."""


@dataclass(frozen=True)
class FrameHeader:
    """The header of a frame; `following` frames of the same call come right behind it."""

    following: int
    id_size: int
    address_size: int
    shape: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def parse(cls, header: bytes, max_side: int) -> "FrameHeader":
        """Raises WireError unless it is of a frame that `max_side` allows."""
        mark, following, id_size, address_size, height, width, own_height, own_width = FRAME_HEADER.unpack(
            header
        )
        if mark != _MARK:
            raise WireError(f"wanted a frame, got {mark!r}")
        if max(id_size, address_size) > _MAX_TEXT or not (0 < height <= max_side and 0 < width <= max_side):
            raise WireError(
                f"wanted a frame of {max_side} x {max_side} pixels at most with an id and an address of {_MAX_TEXT} "
                f"bytes, got {width} x {height} pixels with {id_size} and {address_size} bytes"
            )
        return cls(following, id_size, address_size, (height, width), (own_height, own_width))

    @property
    def body_size(self) -> int:
        return self.id_size + self.address_size + self.shape[0] * self.shape[1] * 3

    def frame(self, body: Body) -> Frame:
        """The frame, whose pixels are a view of `body`; raises WireError when its texts are none."""
        texts = body[: self.id_size + self.address_size].tobytes()
        try:
            image_id, address = (
                text.decode("utf-8", "surrogatepass")
                for text in (texts[: self.id_size], texts[self.id_size :])
            )
        except UnicodeDecodeError as error:
            raise WireError(f"a frame's id or address is not UTF-8: {error.reason}") from error
        return Frame(image_id, body[len(texts) :].reshape(*self.shape, 3), self.size, address)


def frame_parts(frame: Frame, following: int) -> tuple[Part, ...]:
    """The message of a frame that `frame_fault` has nothing against."""
    image_id, address = _encoded(frame.image_id), _encoded(frame.address)
    header = FRAME_HEADER.pack(
        _MARK, following, len(image_id), len(address), *frame.rgb.shape[:2], *frame.size
    )
    return header + image_id + address, np.ascontiguousarray(frame.rgb)


def frame_fault(frame: Frame, max_side: int) -> str | None:
    """Why a frame cannot be sent to a server that takes frames of `max_side` pixels, or None."""
    rgb = frame.rgb
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        return f"wanted (h, w, 3) uint8 pixels, got {rgb.shape} {rgb.dtype}"
    if max(rgb.shape[:2]) > max_side:
        return (
            f"it has {rgb.shape[1]} x {rgb.shape[0]} pixels; the model takes {max_side} x {max_side} at most"
        )
    if max(len(_encoded(frame.image_id)), len(_encoded(frame.address))) > _MAX_TEXT:
        return f"its id or address has more than {_MAX_TEXT} bytes"
    return None


def greeting(kind: Kind, number: int) -> bytes:
    """READY or BUSY."""
    return ANSWER_HEADER.pack(_MARK, kind, number, 0)


def answer_parts(answer: LabelMap | MadError) -> tuple[Part, ...]:
    """The message of a label map, (h, w) uint8, or of why there is none."""
    if isinstance(answer, MadError):
        text = str(answer).encode("utf-8", "replace")[:_MAX_MESSAGE]
        return (ANSWER_HEADER.pack(_MARK, Kind.ERROR, len(text), 0) + text,)
    return ANSWER_HEADER.pack(_MARK, Kind.MAP, *answer.shape), np.ascontiguousarray(answer)


def parse_answer(header: bytes, shape: tuple[int, int] | None) -> tuple[Kind, int, int]:
    """Kind, its first number, and bytes of the body.

    `shape` is that of the frame whose answer is due, None where the greeting is. Raises WireError for anything else.
    """
    mark, kind, first, second = ANSWER_HEADER.unpack(header)
    wanted = (Kind.READY, Kind.BUSY) if shape is None else (Kind.MAP, Kind.ERROR)
    if mark != _MARK or kind not in wanted:
        raise WireError(f"wanted {' or '.join(k.name for k in wanted)}, got {mark!r} {kind}")
    if kind == Kind.MAP and (first, second) != shape:
        raise WireError(f"wanted a label map of shape {shape}, got {(first, second)}")
    if kind == Kind.ERROR and first > _MAX_MESSAGE:
        raise WireError(f"wanted a message of {_MAX_MESSAGE} bytes at most, got {first}")
    size = {Kind.MAP: first * second, Kind.ERROR: first}.get(kind, 0)
    return Kind(kind), first, size


class MessageReader:
    """The messages that come in at one socket; `body_size` gives that of a header, or raises WireError."""

    def __init__(self, header_size: int, body_size: Callable[[bytes], int]) -> None:
        self._header_size = header_size
        self._body_size = body_size
        self._header: bytes | None = None
        self._expect(header_size)

    def read(self, source: socket.socket) -> tuple[bytes, Body] | None:
        """Header and body of the next message, None while some of it has not come.

        Raises WireError, and OSError when the connection has ended.
        """
        while self._fill(source):
            arrived = self._buffer
            if self._header is None:
                self._header = arrived.tobytes()
                self._expect(self._body_size(self._header))
            else:
                header, self._header = self._header, None
                self._expect(self._header_size)
                return header, arrived
        return None

    def _expect(self, size: int) -> None:
        self._buffer = np.empty(size, np.uint8)
        self._missing = self._buffer.data

    def _fill(self, source: socket.socket) -> bool:
        while self._missing:
            try:
                count = source.recv_into(self._missing)
            except BlockingIOError:
                return False
            if not count:
                raise ConnectionResetError("the connection was closed at the other end")
            self._missing = self._missing[count:]
        return True


class MessageWriter:
    """Messages on their way out of one socket that does not block."""

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()

    @property
    def is_empty(self) -> bool:
        return not self._parts

    def add(self, parts: tuple[Part, ...]) -> None:
        self._parts.extend(
            memoryview(part) if isinstance(part, bytes) else part.data.cast("B") for part in parts
        )

    def send(self, target: socket.socket) -> None:
        """As much as `target` takes now; raises OSError when the connection has ended."""
        while self._parts:
            try:
                sent = target.sendmsg(islice(self._parts, _PARTS_AT_ONCE))
            except BlockingIOError:
                return
            while self._parts and sent >= len(self._parts[0]):
                sent -= len(self._parts.popleft())
            if sent:
                self._parts[0] = self._parts[0][sent:]


def make_unblocking(connection: socket.socket) -> None:
    """For readers and writers of messages."""
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
