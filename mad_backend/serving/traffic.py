"""The connections of a model server, in a thread of their own: frames in, answers out, while the model runs."""

import errno
import logging
import math
import select
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import MadError
from mad_backend.serving.batching import Batches, Pace
from mad_backend.serving.wire import (
    FRAME_HEADER,
    FrameHeader,
    Kind,
    MessageReader,
    MessageWriter,
    Part,
    WireError,
    answer_parts,
    greeting,
    make_unblocking,
)

log = logging.getLogger(__name__)

_OF_ONE: Final = 2
"""Batches of frames that one connection may have here without an answer."""
_OF_ALL: Final = 4
"""Batches of frames that all may have; a connection with none may have one even then, so that all have their turn."""
_SCARCE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S: Final = 0.1


class Peer:
    """One connection: `unanswered` frames of it are here, `following` more are about to come."""

    def __init__(self, connection: socket.socket, max_side: int) -> None:
        self.connection = connection
        self.reader = MessageReader(
            FRAME_HEADER.size, lambda header: FrameHeader.parse(header, max_side).body_size
        )
        self.writer = MessageWriter()
        self.unanswered = 0
        self.following = 0
        self.events = 0
        self.is_open = True


class Traffic:
    """`run` in a thread of its own; `answer`, `drain` and the numbers may be asked for from any other.

    `frames` is where frames go; it ends with this. `max_side` is the longest side, in pixels, that a frame may have.
    """

    def __init__(
        self,
        listener: socket.socket,
        frames: Batches[Peer, Frame],
        *,
        max_side: int,
        queue: int,
        batch_size: int,
    ) -> None:
        self._listener = listener
        self._frames = frames
        self._max_side = max_side
        self._queue = queue
        self._batch_size = batch_size
        self._peers: dict[int, Peer] = {}
        self._unanswered = 0
        self._answered: SimpleQueue[Sequence[tuple[Peer, LabelMap | MadError]]] = SimpleQueue()
        self._pace = Pace()
        self._ends_at = math.inf
        self._is_draining = False
        self._is_listening = True
        self._listening_at = listener.fileno()
        self._poll = select.poll()
        self._waker, self._woken = socket.socketpair()
        for one in (listener, self._waker, self._woken):
            one.setblocking(False)

    @property
    def connections(self) -> int:
        return len(self._peers)

    @property
    def unanswered(self) -> int:
        """Frames that are here and have no answer yet."""
        return self._unanswered

    def run(self) -> None:
        """Until `stop`, or after `drain` until the last connection is closed or patience ends."""
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)
        try:
            while not self._is_over():
                for number, events in self._poll.poll(self._poll_ms()):
                    if number == self._woken.fileno():
                        self._woken.recv(4096)
                    elif number == self._listening_at:
                        self._is_draining |= bool(events & ~select.POLLIN)
                        self._accept()
                    elif peer := self._peers.get(number):
                        self._attend(peer, events)
                self._send_answers()
                if self._is_draining and self._is_listening:
                    self._stop_listening()
        finally:
            self._refuse()
            for peer in list(self._peers.values()):
                self._close(peer)
            self._frames.end()
            self._woken.close()

    def answer(self, answered: Sequence[tuple[Peer, LabelMap | MadError]], seconds: float) -> None:
        """Answers of one batch, which took `seconds`."""
        self._pace.note(len(answered), seconds)
        self._answered.put(answered)
        self._wake()

    def drain(self, patience_s: float) -> None:
        """For signal handlers too, hence without a lock."""
        self._ends_at = time.monotonic() + patience_s
        self._is_draining = True
        self._wake()

    def stop(self) -> None:
        """Ends `run` at once."""
        self.drain(0)

    def close(self) -> None:
        """After `run`."""
        self._waker.close()

    def _wake(self) -> None:
        # A full pipe wakes as well; one that is closed has nobody behind it.
        with suppress(OSError):
            self._waker.send(b"\0")

    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends_at or not (self._is_listening or self._peers)

    def _poll_ms(self) -> int | None:
        left = self._ends_at - time.monotonic()
        return None if left == math.inf else math.ceil(max(0.0, left) * 1000)

    def _accept(self) -> bool:
        """Whether there was a connection to take."""
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _SCARCE:
                log.warning("a connection has to wait: %s", error.strerror)
                time.sleep(_PAUSE_S)
            return False
        make_unblocking(connection)
        if len(self._peers) >= self._queue:
            with connection, suppress(OSError):
                connection.send(greeting(Kind.BUSY, self._retry_after_s()))
            return True
        peer = self._peers[connection.fileno()] = Peer(connection, self._max_side)
        self._poll.register(connection, 0)
        self._say(peer, (greeting(Kind.READY, self._max_side),))
        return True

    def _stop_listening(self) -> None:
        """What has connected is served; what has not is refused at once, whoever else holds the listening socket."""
        self._is_listening = False
        self._poll.unregister(self._listening_at)
        self._refuse()
        while self._accept():
            pass
        self._listener.close()

    def _refuse(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)

    def _attend(self, peer: Peer, events: int) -> None:
        try:
            if events & ~(select.POLLIN | select.POLLOUT):
                self._close(peer)
                return
            if events & select.POLLOUT:
                peer.writer.send(peer.connection)
            if events & select.POLLIN:
                self._read(peer)
        except (OSError, WireError, MemoryError) as error:
            if isinstance(error, WireError | MemoryError):
                log.warning("a connection is closed: %s", error)
            self._close(peer)
            return
        self._watch([peer])

    def _read(self, peer: Peer) -> None:
        """One frame at most, so that others have their turn."""
        message = peer.reader.read(peer.connection)
        if message is None:
            return
        header = FrameHeader.parse(message[0], self._max_side)
        frame = header.frame(message[1])
        was_full = self._is_full()
        peer.unanswered += 1
        peer.following = header.following
        self._unanswered += 1
        self._frames.add(peer, frame, is_last=not header.following, is_urgent=self._is_full())
        if self._is_full() != was_full:
            self._watch(self._peers.values())

    def _send_answers(self) -> None:
        was_full = self._is_full()
        while not self._answered.empty():
            for peer, answer in self._answered.get():
                peer.unanswered -= 1
                self._unanswered -= 1
                if peer.is_open:
                    self._say(peer, answer_parts(answer))
        if self._is_full() != was_full:
            self._watch(self._peers.values())

    def _say(self, peer: Peer, parts: tuple[Part, ...]) -> None:
        peer.writer.add(parts)
        try:
            peer.writer.send(peer.connection)
        except OSError:
            self._close(peer)
        else:
            self._watch([peer])

    def _watch(self, peers: Iterable[Peer]) -> None:
        """Asks for what each is to be attended to for; that one has gone is told in any case."""
        for peer in peers:
            events = 0 if peer.writer.is_empty else select.POLLOUT
            if not events and self._may_send(peer):
                events = select.POLLIN
            if events != peer.events:
                peer.events = events
                self._poll.modify(peer.connection, events)

    def _may_send(self, peer: Peer) -> bool:
        return not peer.unanswered or (peer.unanswered < _OF_ONE * self._batch_size and not self._is_full())

    def _is_full(self) -> bool:
        return self._unanswered >= _OF_ALL * self._batch_size

    def _close(self, peer: Peer) -> None:
        self._poll.unregister(peer.connection)
        del self._peers[peer.connection.fileno()]
        peer.connection.close()
        peer.is_open = False
        was_full = self._is_full()
        dropped = self._frames.drop(peer)
        peer.unanswered -= dropped
        self._unanswered -= dropped
        if self._is_full() != was_full:
            self._watch(self._peers.values())

    def _retry_after_s(self) -> int:
        coming = sum(peer.following for peer in self._peers.values())
        return self._pace.retry_after_s(self._unanswered + coming)
