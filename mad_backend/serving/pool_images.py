"""Which image a task is about: one of the pool, or what lies at the address in the field that its project shows."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, TypeAlias

from mad_backend.core.records import PoolImage, ProjectRole
from mad_backend.errors import LabelFormatError, PoolError
from mad_backend.pool.sources import list_images
from mad_backend.settings import Settings
from mad_backend.store.store import Store

log = logging.getLogger(__name__)

_POOL_ID: Final = "pool:"
"""Begins the value of a task's field that names an image of the pool by its id."""
_ITEM_LENGTH: Final = 24
"""Of the item keys that we push (`RemoteTable.item_key`)."""
_STALE_S: Final = 60.0
"""A pool is listed again for ids that it did not have, once in this time: a large one takes seconds."""

Place: TypeAlias = PoolImage | str
"""An image of the pool, or an address that a task names."""


class PoolImages:
    """May be used by many threads. Raises PoolError when the pool cannot be listed; `clock` gives seconds."""

    def __init__(self, store: Store, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._remote = store.remote
        self._settings = settings
        self._clock = clock
        self._lock = Lock()
        self._missing: frozenset[str] = frozenset()
        self._list()

    def places_of(self, tasks: Sequence[object], field: str) -> dict[int, Place]:
        """Number of a task in `tasks` -> its image; tasks without one are left out, and the log says why.

        Raises StoreError; asks the database once, whatever the number of tasks, and not at all for tasks of others.
        """
        data = [_data_of(task) for task in tasks]
        items = {item for d in data if isinstance(item := d.get("item"), str) and _is_item(item)}
        ours = self._remote.images_of_items(items) if items else {}
        named: dict[int, str] = {}
        for number, task in enumerate(tasks):
            try:
                named[number] = _name_of(data[number], field, ours)
            except LabelFormatError as error:
                log.warning("no prediction for task %s: %s", shown_id(task), error)
        wanted = {name.removeprefix(_POOL_ID) for name in named.values() if name.startswith(_POOL_ID)}
        self._look_for(wanted, {image_id for _, image_id in ours.values()})
        found: dict[int, Place] = {}
        for number, name in named.items():
            place = self._place(name)
            if place is None:
                log.warning(
                    'no prediction for task %s: there is no image "%.200s" in the pool',
                    shown_id(tasks[number]),
                    name.removeprefix(_POOL_ID),
                )
            else:
                found[number] = place
        return found

    def _place(self, name: str) -> Place | None:
        if name.startswith(_POOL_ID):
            return self._by_id.get(name.removeprefix(_POOL_ID))
        return self._by_address.get(name, name)

    def _look_for(self, wanted: set[str], pushed: set[str]) -> None:
        """Lists the pool again if it lacks one of `wanted`: at once for one that was pushed since, else if it is time.

        Anybody can make up ids, and what left the pool is asked for again and again.
        """
        if self._by_id.keys() >= wanted:
            return
        with self._lock:
            lacking = wanted - self._by_id.keys()
            is_new = bool((lacking & pushed) - self._missing)
            if lacking and (is_new or self._clock() - self._listed_at > _STALE_S):
                self._list_anew()
                self._missing = frozenset(((self._missing | lacking) & pushed) - self._by_id.keys())

    def _list_anew(self) -> None:
        self._listed_at = self._clock()
        try:
            self._list()
        except PoolError as error:
            log.warning("the pool as it was at the last listing is used: %s", error)

    def _list(self) -> None:
        images = list_images(self._settings.pool, self._settings.mirrors)
        self._by_address = {image.path: image for image in images}
        self._by_id = {image.image_id: image for image in images}
        self._listed_at = self._clock()


def shown_id(task: object) -> str:
    """A task's id as log lines show it, whatever was sent in its place."""
    found = task.get("id") if isinstance(task, Mapping) else None
    if isinstance(found, str):
        return repr(found[:40])
    return str(found) if isinstance(found, int) and found.bit_length() <= 64 else "without id"


def _data_of(task: object) -> Mapping[str, Any]:
    data = task.get("data") if isinstance(task, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def _is_item(item: str) -> bool:
    return len(item) == _ITEM_LENGTH and item.isascii() and item.isprintable()


def _name_of(data: Mapping[str, Any], field: str, ours: Mapping[str, tuple[ProjectRole, str]]) -> str:
    """Either "pool:<image id>" or an address; raises LabelFormatError if there is none, or shall be no answer."""
    item, address = data.get("item"), data.get(field)
    role, image_id = ours.get(item, (None, "")) if isinstance(item, str) else (None, "")
    match role:
        case ProjectRole.SEGMENTATION:
            return f"{_POOL_ID}{image_id}"
        case ProjectRole.RATING | ProjectRole.CHECK:
            # A prediction there would tell people where an overlay comes from, or what the checked map began as.
            raise LabelFormatError(f"its data.item is of a {role} project, where people judge without help")
        # What is not printable (line ends, halves of surrogate pairs) is no address, and would spoil the log.
        case None if isinstance(address, str) and address and address.isprintable():
            return address
    raise LabelFormatError(f'its data has no address of an image under "{field[:100]}"')
