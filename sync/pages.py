"""Lists that come in pages, in every shape that releases and editions of Label Studio have."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from mad_backend.errors import LabelStudioError
from sync.shapes import Json

_PASSES: Final = 5
"""Over a list that shrinks while it is read; after that it is taken as it is."""


def entries(get: Callable[[int], Any], key: str) -> Iterator[Json]:
    """The entries of every page, none twice, by their ids; `get` takes the number of a page, from 1 on.

    A page is a dict with a list under `key` and the number of all entries under total or count, or a bare list; past
    the end it is empty or 404. A page may be shorter than asked for, or be the whole list whatever its number. A list
    that got shorter between two pages is read anew: what moved up would be missed.
    """
    seen = set[object]()
    for _ in range(_PASSES):
        shrunk = yield from _one_pass(get, key, seen)
        if not shrunk:
            return


def _one_pass(get: Callable[[int], Any], key: str, seen: set[object]) -> Generator[Json, None, bool]:
    """Returns True if the list got shorter meanwhile."""
    page, received, before, shrunk = 0, 0, None, False
    while True:
        page += 1
        answer = _page(get, page)
        found = answer if isinstance(answer, list) else answer[key]
        total = None if isinstance(answer, list) else answer.get("total", answer.get("count"))
        shrunk = shrunk or (before is not None and total is not None and total < before)
        fresh = [entry for entry in found if entry["id"] not in seen]
        seen.update(entry["id"] for entry in fresh)
        yield from fresh
        received, before = received + len(found), total
        if not found or (not fresh if total is None else received >= total):
            return shrunk


def _page(get: Callable[[int], Any], page: int) -> Any:
    try:
        return get(page)
    except LabelStudioError as error:
        if error.status == 404 and page > 1:
            return []
        raise
