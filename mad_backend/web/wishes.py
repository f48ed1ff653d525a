"""Word for the scheduler that something changed, left without keeping whoever brings it waiting."""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Final

from mad_backend.store.store import Store

_PATIENCE_S: Final = 0.5
"""Label Studio gives a webhook one second, within an annotator's request; a locked database may take thirty."""


class Wishes:
    """May be used by many threads; those that come together leave one word, of which the store keeps one anyway."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="wishes")
        self._coming: Future[None] | None = None
        self._lock = Lock()

    def leave(self) -> None:
        """The next look of `mad schedule` pulls and does what is due; raises StoreError if that is known at once."""
        with self._lock:
            # One that has begun may have been taken already when this one comes.
            if self._coming is None or self._coming.done() or self._coming.running():
                self._coming = self._writer.submit(self._store.remote.want_pull)
            coming = self._coming
        try:
            coming.result(_PATIENCE_S)
        except TimeoutError:
            return
