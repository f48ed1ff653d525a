"""Messages between a request and the model's process: whole again after any fragmentation, and never too large."""

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.serving.wire import (
    ANSWER_HEADER,
    FRAME_HEADER,
    FrameHeader,
    Kind,
    MessageReader,
    MessageWriter,
    WireError,
    answer_parts,
    frame_fault,
    frame_parts,
    parse_answer,
)

FRAMES = st.builds(
    lambda image_id, height, width, address: Frame(
        image_id, np.full((height, width, 3), len(image_id), np.uint8), (height * 9, width * 9), address
    ),
    st.text(max_size=9),
    st.integers(1, 32),
    st.integers(1, 32),
    st.text(max_size=9),
)


def whole(parts: tuple[object, ...]) -> bytes:
    return b"".join(bytes(part) for part in parts)  # type: ignore[call-overload]


@given(st.lists(FRAMES, max_size=4), st.lists(st.integers(1, 4000), min_size=1))
def test_frames_are_whole_again_in_whatever_pieces_they_come(frames: list[Frame], sizes: list[int]) -> None:
    assert not any(frame_fault(frame, 32) for frame in frames)
    sent = b"".join(whole(frame_parts(frame, n)) for n, frame in enumerate(frames))
    reader = MessageReader(FRAME_HEADER.size, lambda header: FrameHeader.parse(header, 32).body_size)
    read = []
    here, there = socket.socketpair()
    with here, there:
        there.setblocking(False)
        while sent:
            size, sizes = sizes[0], [*sizes[1:], sizes[0]]
            here.sendall(sent[:size])
            sent = sent[size:]
            while message := reader.read(there):
                header = FrameHeader.parse(message[0], 32)
                read.append((header.following, header.frame(message[1])))
    assert [following for following, _ in read] == list(range(len(frames)))
    for frame, (_, again) in zip(frames, read, strict=True):
        assert (frame.image_id, frame.size, frame.address) == (again.image_id, again.size, again.address)
        np.testing.assert_array_equal(frame.rgb, again.rgb)


@given(st.binary(min_size=FRAME_HEADER.size, max_size=FRAME_HEADER.size), st.booleans())
def test_no_header_asks_for_more_memory_than_the_largest_frame_needs(header: bytes, is_marked: bool) -> None:
    header = b"MAD1" + header[4:] if is_marked else header
    try:
        size = FrameHeader.parse(header, 513).body_size
    except WireError:
        return
    assert size <= 513 * 513 * 3 + 2 * 2**16


@given(st.binary(min_size=ANSWER_HEADER.size, max_size=ANSWER_HEADER.size), st.booleans())
def test_no_answer_asks_for_more_memory_than_its_frame_s_label_map(header: bytes, is_marked: bool) -> None:
    header = b"MAD1" + header[4:] if is_marked else header
    for shape, most in ((None, 0), ((7, 9), 4096)):
        try:
            kind, _, size = parse_answer(header, shape)
        except WireError:
            continue
        assert size <= most
        assert (kind in (Kind.READY, Kind.BUSY)) == (shape is None)


def test_long_reasons_are_cut() -> None:
    message = whole(answer_parts(ModelError("ö" * 5000)))
    assert parse_answer(message[: ANSWER_HEADER.size], (1, 1)) == (Kind.ERROR, 4096, 4096)
    assert len(message) == ANSWER_HEADER.size + 4096


def test_a_writer_keeps_what_a_full_socket_does_not_take() -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    writer = MessageWriter()
    parts = tuple(np.full(100_000, n, np.uint8) for n in range(40))
    writer.add(parts)
    got = b""
    with here, there:
        while not writer.is_empty:
            writer.send(here)
            got += there.recv(3_000_000)
        while len(got) < 4_000_000:
            got += there.recv(3_000_000)
    assert got == whole(parts)
    writer.add((b"x",))
    with pytest.raises(OSError, match="Bad file descriptor"):
        writer.send(here)
