"""People's time: what Label Studio tells of it without idle hours, by person and by kind of work."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import Final

IDLE_FACTOR: Final = 5
"""Of the median time of a piece of work; what takes longer was left open."""
_OWN_PIECES: Final = 5
"""With fewer pieces than these, a person's own median says too little, and everybody's is taken."""


class Work(StrEnum):
    """What people are paid for."""

    RATING = "rating"
    LABELLING = "labelling"
    CHECKING = "checking"


@dataclass(frozen=True)
class Piece:
    """One answer of one person; `seconds` None: nobody knows how long it took."""

    work: Work
    person: str
    image_id: str
    seconds: float | None
    is_veto: bool = False


@dataclass(frozen=True)
class Spent:
    """Time of `pieces` pieces of work: `seconds` of those whose time is known, `unknown` others."""

    pieces: int = 0
    unknown: int = 0
    seconds: float = 0.0

    @classmethod
    def on(cls, pieces: Iterable[Piece]) -> "Spent":
        times = [p.seconds for p in pieces]
        known = [s for s in times if s is not None]
        return cls(len(times), len(times) - len(known), sum(known))

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.pieces + other.pieces, self.unknown + other.unknown, self.seconds + other.seconds)

    @property
    def seconds_each(self) -> float | None:
        """Mean of the pieces whose time is known; None where there is none."""
        known = self.pieces - self.unknown
        return self.seconds / known if known else None

    @property
    def hours(self) -> float | None:
        """Of all pieces, those of unknown time taken to be as long as the others on average; None: no time is known."""
        if not self.pieces:
            return 0.0
        return None if self.seconds_each is None else self.seconds_each * self.pieces / 3600


NOTHING: Final = Spent()
"""No work at all; what sums begin with."""


@dataclass(frozen=True)
class PersonCost:
    """One person's work of one kind; `median_s` None where no time is known."""

    work: Work
    person: str
    spent: Spent
    median_s: float | None
    vetoes: int


def without_idle(pieces: Iterable[Piece], idle_s: float | None = None) -> list[Piece]:
    """The pieces with times cut to `idle_s`, or to five medians of that person and kind of work.

    Label Studio counts the seconds for which a task was open, lunch included. With fewer than five times of a person
    the median is everybody's, of that kind of work.
    """
    given = list(pieces)
    everybody: dict[Work, list[float]] = {}
    own: dict[tuple[Work, str], list[float]] = {}
    for piece in given:
        if piece.seconds is not None:
            everybody.setdefault(piece.work, []).append(piece.seconds)
            own.setdefault((piece.work, piece.person), []).append(piece.seconds)

    def cap(times: list[float], work: Work) -> float:
        if idle_s is not None:
            return idle_s
        return IDLE_FACTOR * median(times if len(times) >= _OWN_PIECES else everybody[work])

    caps = {(work, person): cap(times, work) for (work, person), times in own.items()}
    return [
        p if p.seconds is None else replace(p, seconds=min(p.seconds, caps[p.work, p.person])) for p in given
    ]


def by_person(pieces: Iterable[Piece]) -> list[PersonCost]:
    """Raters, annotators, checkers, by name; `pieces` without idle times."""
    order = list(Work)
    given: dict[tuple[int, str], list[Piece]] = {}
    for piece in pieces:
        given.setdefault((order.index(piece.work), piece.person), []).append(piece)
    return [
        PersonCost(
            order[place],
            person,
            Spent.on(own),
            median(times) if (times := [p.seconds for p in own if p.seconds is not None]) else None,
            sum(p.is_veto for p in own),
        )
        for (place, person), own in sorted(given.items(), key=lambda item: item[0])
    ]


def total_hours(spent: Mapping[Work, Spent]) -> float | None:
    """Of all kinds of work together; None where of one kind no time is known."""
    hours = [one.hours for one in spent.values()]
    known = [h for h in hours if h is not None]
    return sum(known) if len(known) == len(hours) else None
