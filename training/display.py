"""How far a long command is: a bar on a terminal, now and then a line elsewhere."""

import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn

LINE_EVERY_S = 10.0


class Display(AbstractContextManager["Display"]):
    """A bar of `columns` while it is open; where `console` is no terminal, a line every ten seconds."""

    def __init__(self, console: Console, columns: tuple[ProgressColumn, ...], first: str) -> None:
        self._console = console
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task(first, total=None)
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def tell(self, what: str, done: int, total: int, line: str) -> None:
        """`what` beside the bar, `line` where there is none."""
        self._bar.update(self._task, description=what, completed=done, total=total)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last >= LINE_EVERY_S:
            self._last = now
            self._console.print(line, markup=False, highlight=False)
