"""How many pixels are worked on at once, and who is let in when."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mad_backend.serving.pixel_room import PixelRoom


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_so():
            return
        time.sleep(0.01)
    raise AssertionError("never so")


def test_no_more_is_let_in_than_there_is_room_for() -> None:
    room, inside, most, lock = PixelRoom(10), 0, 0, threading.Lock()

    def work(pixels: int) -> None:
        nonlocal inside, most
        with room.taken(pixels):
            with lock:
                inside += pixels
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= pixels

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, 1 + n % 5) for n in range(100)]:
            done.result()
    assert inside == 0
    assert 5 < most <= 10


def test_an_image_larger_than_the_room_has_it_alone_and_is_not_passed_by() -> None:
    room, order, leave = PixelRoom(10), list[str](), threading.Event()

    def work(name: str, pixels: int) -> None:
        with room.taken(pixels):
            order.append(name)
            if name == "first":
                leave.wait(5)

    with ThreadPoolExecutor(3) as threads:
        threads.submit(work, "first", 3)
        wait_until(lambda: order == ["first"])
        threads.submit(work, "huge", 100)
        wait_until(room._entrance.locked)
        small = threads.submit(work, "small", 1)
        time.sleep(0.05)
        assert order == ["first"]
        leave.set()
        small.result()
    assert order == ["first", "huge", "small"]


def test_who_fails_inside_gives_the_room_back() -> None:
    room = PixelRoom(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), room.taken(10):
            _ = 1 / 0
    with room.taken(10):
        pass
