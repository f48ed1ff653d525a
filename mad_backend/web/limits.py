"""How much a worker takes on: requests for predictions at once, bytes of one request."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Semaphore
from typing import Final

from mad_backend.errors import BusyError

_RETRY_AFTER_S: Final = 5
"""Whoever is refused comes back when some of those before it have their answers."""


class Places:
    """`serve.queue` of them; whoever finds none is sent away at once, since waiting is what takes up a thread."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = Semaphore(count)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One place, for as long as the answer takes; raises BusyError."""
        if not self._free.acquire(blocking=False):
            raise BusyError(
                f"{self._count} requests for predictions are being answered (serve.queue); "
                f"come again in {_RETRY_AFTER_S} s",
                _RETRY_AFTER_S,
            )
        try:
            yield
        finally:
            self._free.release()


def too_long(limit: int) -> str:
    """Why a body of more than `limit` bytes is refused."""
    return f"a request may have {limit:,} bytes (serve.max_body_bytes); ask for fewer tasks at once"
