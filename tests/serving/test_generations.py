"""Announcements of the supervisor, as web workers read them."""

from pathlib import Path
from threading import Event, Thread

from mad_backend.serving.generations import Announcements, Announcer, Generation
from mad_backend.serving.targets import TargetState


def generation(number: int, state: TargetState = TargetState.READY) -> Generation:
    socket = Path(f"/run/{number}.sock") if state is TargetState.READY else None
    return Generation(number, f"scenes@{number}", "key" * (number % 50), socket, state, "e" * (number % 7))


def test_what_is_announced_is_what_is_read(tmp_path: Path) -> None:
    announcer, announcements = Announcer(tmp_path), Announcements(tmp_path)
    assert announcements.current() is None
    for number, state in enumerate((TargetState.LOADING, TargetState.READY, TargetState.FAILED)):
        announcer.announce(generation(number, state))
        assert announcements.current() == generation(number, state)
        assert Announcements(tmp_path).current() == generation(number, state)


def test_an_announcement_is_read_once(tmp_path: Path) -> None:
    Announcer(tmp_path).announce(generation(1))
    announcements = Announcements(tmp_path)
    assert announcements.current() is announcements.current()


def test_readers_never_miss_an_announcement_however_fast_they_follow(tmp_path: Path) -> None:
    announcer, announcements = Announcer(tmp_path), Announcements(tmp_path)
    for number in range(300):
        announcer.announce(generation(number))
        assert announcements.current() == generation(number)


def test_readers_never_have_half_an_announcement(tmp_path: Path) -> None:
    announcer, announcements = Announcer(tmp_path), Announcements(tmp_path)
    announcer.announce(generation(0))
    ended = Event()
    seen: list[int] = []

    def read_on() -> None:
        while not ended.is_set():
            found = announcements.current()
            assert found == generation(found.number if found else -1)
            seen.append(found.number)

    readers = [Thread(target=read_on) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(300):
        announcer.announce(generation(number))
    ended.set()
    for reader in readers:
        reader.join()
    assert announcements.current() == generation(299)
    assert seen
