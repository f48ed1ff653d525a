"""A bound on the pixels that are decoded or drawn at once, so that large photos do not fill the memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class PixelRoom:
    """Room for `most` pixels; an image that is larger has it alone. Who came first goes first. For many threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._entrance = Lock()
        self._left = Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Waits until there is room for so many."""
        with self._entrance, self._left:
            while self._taken and self._taken + pixels > self._most:
                self._left.wait()
            self._taken += pixels
        try:
            yield
        finally:
            with self._left:
                self._taken -= pixels
                self._left.notify_all()
