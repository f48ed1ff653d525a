"""Label maps of scans, kept open between requests and closed when nobody reads them any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from mad_backend.pool.predictions import PredictionPack, PredictionStore


class OpenPacks:
    """Of the version that is served, and of older ones for as long as somebody holds them."""

    def __init__(self, store: PredictionStore) -> None:
        self._store = store
        self._open: dict[str, PredictionPack] = {}
        self._holders: dict[str, int] = {}
        self._newest: str | None = None
        self._lock = Lock()

    @contextmanager
    def hold(self, key: str) -> Iterator[PredictionPack]:
        """The pack of a model key, with notice of what a scan has added since."""
        with self._lock:
            self._newest = key
            if key not in self._open:
                self._open[key] = self._store.open(key)
            else:
                self._open[key].refresh()
            self._holders[key] = self._holders.get(key, 0) + 1
            pack = self._open[key]
        try:
            yield pack
        finally:
            with self._lock:
                self._holders[key] -= 1
                self._close_unread()

    def close(self) -> None:
        with self._lock:
            self._newest = None
            self._close_unread()

    def _close_unread(self) -> None:
        for key in [k for k in self._open if k != self._newest and not self._holders[k]]:
            self._open.pop(key).close()
            del self._holders[key]
