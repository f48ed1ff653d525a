"""Turns of requests: nobody starves, nothing is lost, nothing waits longer than it must."""

from collections import deque
from itertools import count
from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from mad_backend.serving.batching import Batches, Pace, Turns
from tests.serving.gated_model import until

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 4), st.booleans()),
        st.tuples(st.just("take"), st.integers(1, 5), st.just(True)),
        st.tuples(st.just("drop"), st.integers(0, 4), st.just(True)),
        st.tuples(st.just("hurry"), st.just(0), st.just(True)),
    ),
    max_size=80,
)


def test_a_long_request_and_short_ones_share_a_batch() -> None:
    turns: Turns[str, int] = Turns(4)
    for n in range(300):
        turns.add("long", n, is_last=n == 299)
    for name in "abc":
        turns.add(name, 0, is_last=True)
    assert turns.take(4) == [("long", 0), ("a", 0), ("b", 0), ("c", 0)]
    assert turns.take(4) == [("long", n) for n in range(1, 5)]


def test_what_comes_at_once_is_given_out_at_once() -> None:
    turns: Turns[str, int] = Turns(3)
    turns.add("a", 0, is_last=False)
    turns.add("a", 1, is_last=False)
    assert turns.is_empty
    turns.add("b", 0, is_last=True)
    assert turns.take(9) == [("b", 0)]
    turns.add("a", 2, is_last=False)
    assert turns.take(9) == [("a", 0), ("a", 1), ("a", 2)]
    turns.add("a", 3, is_last=False)
    turns.hurry()
    assert turns.take(9) == [("a", 3)]


@given(STEPS, st.integers(1, 4))
def test_every_item_is_given_out_once_in_order_and_between_two_of_a_request_each_other_has_its_turn(
    steps: list[tuple[str, int, bool]], together: int
) -> None:
    turns: Turns[int, int] = Turns(together)
    left: dict[int, deque[int]] = {request: deque() for request in range(5)}
    items = count()
    overtaken: dict[int, set[int]] = {request: set() for request in range(5)}
    """Request that can be given an item -> those that were given one since it waits for its own."""
    for what, number, is_last in [*steps, ("hurry", 0, True), ("take", len(steps), True)]:
        if what == "add":
            item = next(items)
            left[number].append(item)
            turns.add(number, item, is_last=is_last)
        elif what == "drop":
            assert turns.drop(number) == len(left[number])
            left[number].clear()
            overtaken[number].clear()
        elif what == "hurry":
            turns.hurry()
        else:
            for _ in range(number):
                waiting = set(turns._ready)
                taken = turns.take(1)
                assert len(taken) == bool(waiting)
                for request, item in taken:
                    assert item == left[request].popleft()
                    overtaken[request].clear()
                    for other in waiting - {request}:
                        assert request not in overtaken[other]
                        overtaken[other].add(request)
    assert not any(left.values())
    assert turns.is_empty


def test_the_taker_waits_for_the_first_item_and_for_no_second() -> None:
    batches: Batches[str, int] = Batches(4)
    taken: list[list[tuple[str, int]]] = []

    def take() -> None:
        while batch := batches.take():
            taken.append(batch)

    thread = Thread(target=take)
    thread.start()
    batches.add("a", 0, is_last=True, is_urgent=False)
    until(lambda: len(taken) == 1)
    batches.add("a", 1, is_last=False, is_urgent=True)
    until(lambda: len(taken) == 2)
    batches.add("a", 2, is_last=False, is_urgent=False)
    assert batches.drop("a") == 1
    batches.end()
    thread.join(5)
    assert taken == [[("a", 0)], [("a", 1)]]


def test_busy_servers_ask_to_come_again_when_what_waits_is_done() -> None:
    pace = Pace()
    assert pace.retry_after_s(10) == 1
    pace.note(4, 2.0)
    assert pace.retry_after_s(10) == 5
    pace.note(1, 1.5)
    assert pace.retry_after_s(10) == 8
    assert pace.retry_after_s(1000) == 60
    assert pace.retry_after_s(0) == 1
