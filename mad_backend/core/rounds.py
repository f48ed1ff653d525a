"""The round as a state machine, held as data."""

from dataclasses import dataclass
from enum import StrEnum

from mad_backend.errors import TransitionError


class RoundState(StrEnum):
    """Where a round is; the order of the members is the order of the work."""

    CREATED = "created"
    PREDICTING = "predicting"
    SELECTING = "selecting"
    RATING = "rating"
    LABELLING = "labelling"
    CHECKING = "checking"
    TRAINING = "training"
    EVALUATING = "evaluating"
    PROMOTING = "promoting"
    FINISHED = "finished"
    FAILED = "failed"
    PAUSED = "paused"
    CANCELLED = "cancelled"

    @property
    def is_working(self) -> bool:
        """True where `tick` has something to do or to look for."""
        return self in _WORK

    @property
    def is_over(self) -> bool:
        """True where nothing will ever change again."""
        return self in (RoundState.FINISHED, RoundState.CANCELLED)


_WORK = (
    RoundState.CREATED,
    RoundState.PREDICTING,
    RoundState.SELECTING,
    RoundState.RATING,
    RoundState.LABELLING,
    RoundState.CHECKING,
    RoundState.TRAINING,
    RoundState.EVALUATING,
    RoundState.PROMOTING,
)

NEXT: dict[RoundState, RoundState] = dict(zip(_WORK, (*_WORK[1:], RoundState.FINISHED), strict=True))
"""The state that follows when a state's work is done."""


@dataclass(frozen=True)
class Round:
    """One turn of Algorithm 1's outer loop.

    `target` is the version f(i-1) that it works with, `came_from` the state that `retry` or `resume` returns to,
    `outcome` what promotion decided, and why, `stop` why the stop rule would start no further round, if it would not.
    """

    number: int
    state: RoundState
    seed: int
    target: str | None = None
    came_from: RoundState | None = None
    error: str | None = None
    outcome: str | None = None
    stop: str | None = None
    note: str = ""
    done: int = 0
    total: int = 0


def check_transition(before: RoundState, after: RoundState, came_from: RoundState | None = None) -> None:
    """Raises TransitionError unless `before` -> `after` is in the machine.

    `target` is the version f(i-1) that the round starts from;
    `came_from` is where a failed or paused round stood.
    """
    match before:
        case RoundState.FINISHED | RoundState.CANCELLED:
            allowed: tuple[RoundState | None, ...] = ()
        case RoundState.FAILED | RoundState.PAUSED:
            allowed = (came_from, RoundState.CANCELLED)
        case _:
            allowed = (NEXT[before], RoundState.FAILED, RoundState.PAUSED, RoundState.CANCELLED)
    if after not in allowed:
        known = ", ".join(s for s in allowed if s) or "none: it is over"
        raise TransitionError(f"a round in state {before} cannot become {after}; possible: {known}")
