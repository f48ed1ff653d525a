"""The state machine: every state to every state."""

from itertools import product

import pytest

from mad_backend.core.rounds import NEXT, RoundState, check_transition
from mad_backend.errors import TransitionError

ORDER = [
    "created",
    "predicting",
    "selecting",
    "rating",
    "labelling",
    "checking",
    "training",
    "evaluating",
    "promoting",
    "finished",
]
STATES = [str(s) for s in RoundState]


def is_possible(before: str, after: str, came_from: str | None) -> bool:
    """The machine once more, in plain words."""
    if before in ("finished", "cancelled"):
        return False
    if after == "cancelled":
        return True
    if before in ("failed", "paused"):
        return after == came_from
    return after in ("failed", "paused") or ORDER[ORDER.index(before) + 1] == after


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)))
def test_every_state_to_every_state(before: str, after: str) -> None:
    came_from = "training" if before in ("failed", "paused") else None
    start, end = RoundState(before), RoundState(after)
    origin = RoundState(came_from) if came_from else None
    if is_possible(before, after, came_from):
        check_transition(start, end, origin)
    else:
        with pytest.raises(TransitionError, match=f"in state {before} cannot become {after}"):
            check_transition(start, end, origin)


def test_the_work_runs_from_created_to_finished_through_every_working_state() -> None:
    state, path = RoundState.CREATED, [RoundState.CREATED]
    while state in NEXT:
        state = NEXT[state]
        path.append(state)
    assert path == ORDER


def test_a_failed_round_whose_origin_is_unknown_can_only_be_cancelled() -> None:
    check_transition(RoundState.FAILED, RoundState.CANCELLED)
    with pytest.raises(TransitionError, match="possible: cancelled"):
        check_transition(RoundState.FAILED, RoundState.TRAINING)


def test_the_error_says_what_would_have_been_possible() -> None:
    with pytest.raises(TransitionError, match="possible: predicting, failed, paused, cancelled"):
        check_transition(RoundState.CREATED, RoundState.FINISHED)
    with pytest.raises(TransitionError, match="none: it is over"):
        check_transition(RoundState.FINISHED, RoundState.CREATED)


def test_each_state_knows_what_it_is() -> None:
    assert {s for s in RoundState if s.is_working} == set(ORDER[:-1])
    assert {s for s in RoundState if s.is_over} == {"finished", "cancelled"}
