"""Which frames go through the model next: those of all requests in turn, as many as are there when it is free."""

import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from threading import Condition
from typing import Final, Generic, TypeVar

Request = TypeVar("Request", bound=Hashable)
Item = TypeVar("Item")

_NEWEST: Final = 0.3
"""Share of the newest batch in the running mean of the time per item."""
_MOST_S: Final = 60
_LOOK_S: Final = 1.0
"""So often whoever waits wakes for nothing: Python handles a signal that comes just before the main thread waits only
when that thread runs again.
"""


class Turns(Generic[Request, Item]):
    """Items of several requests, given out one of each request in turn, and in order within a request.

    Those of a request that come one right behind the other are given out once the last, or `together` of them, are
    there: the first would otherwise go through an idle model alone.
    """

    def __init__(self, together: int) -> None:
        self._together = together
        self._coming: dict[Request, deque[Item]] = {}
        self._ready: OrderedDict[Request, deque[Item]] = OrderedDict()

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be given out now."""
        return not self._ready

    def add(self, request: Request, item: Item, *, is_last: bool) -> None:
        """`is_last`: no other item of this request comes right behind it."""
        coming = self._coming.setdefault(request, deque())
        coming.append(item)
        if is_last or len(coming) >= self._together:
            self._make_ready(request)

    def hurry(self) -> None:
        """Whatever is there may be given out, though more of it may come."""
        for request in list(self._coming):
            self._make_ready(request)

    def take(self, count: int) -> list[tuple[Request, Item]]:
        """The next items, `count` at most."""
        taken: list[tuple[Request, Item]] = []
        while self._ready and len(taken) < count:
            request, items = self._ready.popitem(last=False)
            taken.append((request, items.popleft()))
            if items:
                self._ready[request] = items
        return taken

    def drop(self, request: Request) -> int:
        """Forgets a request; how many items it had."""
        return sum(len(items.pop(request, ())) for items in (self._coming, self._ready))

    def _make_ready(self, request: Request) -> None:
        self._ready.setdefault(request, deque()).extend(self._coming.pop(request))


class Batches(Generic[Request, Item]):
    """`Turns` between the threads that add to it and the one that takes batches of `size` from it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._turns: Turns[Request, Item] = Turns(size)
        self._has_ended = False
        self._changed = Condition()

    def add(self, request: Request, item: Item, *, is_last: bool, is_urgent: bool) -> None:
        """As `Turns.add`; with `is_urgent` nothing waits for what comes behind it."""
        with self._changed:
            self._turns.add(request, item, is_last=is_last)
            if is_urgent:
                self._turns.hurry()
            if not self._turns.is_empty:
                self._changed.notify()

    def take(self) -> list[tuple[Request, Item]]:
        """The next batch: at once what is ready, else as soon as something is; empty once `end` was called."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._has_ended or not self._turns.is_empty, _LOOK_S):
                pass
            return [] if self._has_ended else self._turns.take(self._size)

    def drop(self, request: Request) -> int:
        with self._changed:
            return self._turns.drop(request)

    def end(self) -> None:
        """Ends the waiting of `take`."""
        with self._changed:
            self._has_ended = True
            self._changed.notify()


class Pace:
    """How long an item took lately."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def note(self, items: int, seconds: float) -> None:
        """A batch of so many took so long."""
        now = seconds / items
        self._seconds = self._seconds + _NEWEST * (now - self._seconds) if self._seconds else now

    def retry_after_s(self, items: int) -> int:
        """When it is worth while to come again, while so many wait: 1..60."""
        return min(_MOST_S, max(1, math.ceil(items * self._seconds)))
