"""The target model as the web process sees it: one version at a time, wherever the model runs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import MadError, ModelError

IsAbandoned: TypeAlias = Callable[[], bool]
"""True once nobody is left who waits for the answer."""


def never() -> bool:
    """An `IsAbandoned` for callers who wait."""
    return False


class TargetState(StrEnum):
    """Of the version that is served; UNPROMOTED: there is none yet."""

    UNPROMOTED = "unpromoted"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class TargetStatus:
    """What is served, for /health and /metrics.

    `error`: why `version` failed or, while it is ready, why the one promoted after it is not served; "" if all is well.
    `generation` counts the processes that the model has had.
    """

    version: str | None
    state: TargetState
    error: str = ""
    generation: int = 0


class VersionGoneError(ModelError):
    """Raised when the held version is not to be had any more, though another one is: ask again from the start."""


class HeldTarget(Protocol):
    """One version, which stays the same for as long as it is held, whatever is promoted meanwhile."""

    @property
    def version(self) -> str: ...

    @property
    def key(self) -> str:
        """Under which the label maps of scans are stored (`targets.target_key`)."""

    def predict(
        self, frames: Sequence[Frame], is_abandoned: IsAbandoned = never
    ) -> list[LabelMap | MadError]:
        """One (h, w) uint8 map per frame, of the frame's own shape, or why there is none; loads the model if need be.

        Raises ModelError when the model cannot be had (VersionGoneError: this version of it), BusyError when too much
        is waiting for it, AbandonedError.
        """


class Targets(Protocol):
    """May be used by many threads."""

    def served_version(self) -> str | None:
        """What `hold` gives now, None before the first round; takes milliseconds and loads nothing."""

    def status(self) -> TargetStatus:
        """As `served_version`, and how the model is; as fast."""

    def hold(self) -> AbstractContextManager[HeldTarget]:
        """The served version; raises StoreError when nothing is promoted, ModelError when its files are missing."""

    def close(self) -> None:
        """Lets go of what is loaded."""
