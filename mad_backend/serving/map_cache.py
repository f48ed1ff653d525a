"""Label maps that were made lately, so that a click, or a request that comes again, does not run the model."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

from mad_backend.core.labels import LabelMap
from mad_backend.core.runs import RunMap

_ENTRY_BYTES: Final = 700
"""What an entry takes beside its runs: maps of one class are a few bytes, and there could be millions."""


@dataclass(frozen=True)
class Content:
    """One content of one image: `image_id` is empty for images outside of the pool, which are what they show.

    Those of the pool keep their names, since a model may know images by name (label maps in a folder).
    """

    image_id: str
    digest: int


class MapCache:
    """Label maps by model key and content, as runs; the least lately used go first. For many threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._runs: OrderedDict[tuple[str, Content], RunMap] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str, content: Content) -> LabelMap | None:
        """(h, w) uint8 on the grid."""
        with self._lock:
            runs = self._runs.get((key, content))
            if runs is None:
                return None
            self._runs.move_to_end((key, content))
        return runs.label_map()

    def put(self, key: str, content: Content, label_map: LabelMap) -> None:
        runs = RunMap.of(label_map)
        with self._lock:
            before = self._runs.pop((key, content), None)
            self._bytes += _bytes_of(runs) - (_bytes_of(before) if before else 0)
            self._runs[key, content] = runs
            while self._bytes > self._max_bytes:
                _, dropped = self._runs.popitem(last=False)
                self._bytes -= _bytes_of(dropped)


def _bytes_of(runs: RunMap) -> int:
    return len(runs.payload) + _ENTRY_BYTES
