"""What a round cost and what that found: by cell of M, by competing model, in all.

All of it is computed from records, so that simulated seconds are counted as real ones are.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mad_backend.core.ratings import Opinion, opinions
from mad_backend.core.records import Candidate, Failure, Provenance, Rating, Role
from mad_backend.core.statistics import Estimate
from mad_backend.core.work import (
    NOTHING,
    PersonCost,
    Piece,
    Spent,
    Work,
    by_person,
    total_hours,
    without_idle,
)

FAIR: Final = 3.0
"""Of the absolute category rating scale: what is rated above it is no failure."""
Key = TypeVar("Key")


@dataclass(frozen=True)
class Yield:
    """What images of M, chosen by some cells, cost in ratings and found.

    Of `images`, `judged` have a MOS, and `good` of those so high a one that the target was right after all; `vetoed`
    have none. `failures` are in S; images drawn for T are not, whatever their MOS.
    """

    images: int = 0
    spent: Spent = NOTHING
    judged: int = 0
    good: int = 0
    vetoed: int = 0
    failures: int = 0

    def __add__(self, other: "Yield") -> "Yield":
        return Yield(
            self.images + other.images,
            self.spent + other.spent,
            self.judged + other.judged,
            self.good + other.good,
            self.vetoed + other.vetoed,
            self.failures + other.failures,
        )

    @property
    def false_positive_share(self) -> float | None:
        return self.good / self.judged if self.judged else None

    @property
    def failures_per_hour(self) -> float | None:
        """Of rating; None where no time is known."""
        return self.failures / self.spent.hours if self.spent.hours else None


@dataclass(frozen=True, order=True)
class Cell:
    """A cell of Eq. (2) without its rank: who competed, over which class, in which role."""

    competitor: str
    class_id: int
    role: Role

    @classmethod
    def of(cls, chosen_by: Provenance) -> "Cell":
        return cls(chosen_by.competitor, chosen_by.class_id, chosen_by.role)


@dataclass(frozen=True)
class Gain:
    """Dataset mIoU of f(i) less that of f(i-1) on `image_set`, paired by image, with its 95 % interval."""

    image_set: str
    estimate: Estimate

    @property
    def points(self) -> float:
        return 100 * self.estimate.value


@dataclass(frozen=True)
class RoundCost:
    """One round: |M|, |S|, |T| as far as it is labelled, time by kind of work, and what came of it.

    `confirmed` members of S are rated fair or worse. `last_mos` is the n4-th lowest MOS outside T, the highest where
    there are fewer: that of the last image of S, unless a ceiling kept it out; None before S is cut. An image that
    several cells chose counts for each of `cells`, so that these sum up to more than M and its ratings.
    """

    number: int
    selected: int
    failures: int
    confirmed: int
    test_set: int
    last_mos: float | None
    spent: Mapping[Work, Spent]
    people: tuple[PersonCost, ...]
    cells: Mapping[Cell, Yield]
    models: Mapping[str, Yield]
    gain: Gain | None

    @property
    def total(self) -> Spent:
        return sum(self.spent.values(), NOTHING)

    @property
    def hours(self) -> float | None:
        """Of all kinds of work together; None where of one kind no time is known."""
        return total_hours(self.spent)

    @property
    def points_per_hour(self) -> float | None:
        """Points of mIoU gained per hour of everybody's work."""
        return self.gain.points / self.hours if self.gain and self.hours else None


def round_cost(
    number: int,
    candidates: Sequence[Candidate],
    pieces: Iterable[Piece],
    ratings: Iterable[Rating],
    failures: Sequence[Failure],
    test_set: Collection[str],
    gain: Gain | None,
    *,
    n4: int,
    good: float = 4.0,
    idle_s: float | None = None,
) -> RoundCost:
    """Of one round's records; `pieces` with idle times, `ratings` those that count, `failures` S, lowest MOS first.

    `good`: the MOS from which on the target was right after all. `idle_s` as for `without_idle`.
    """
    worked = without_idle(pieces, idle_s)
    scores = opinions(ratings)

    def yields(key: Callable[[Provenance], Key]) -> dict[Key, Yield]:
        return found_by(candidates, key, worked, scores, {f.image_id for f in failures}, good)

    return RoundCost(
        number=number,
        selected=len(candidates),
        failures=len(failures),
        confirmed=sum(f.mos <= FAIR for f in failures),
        test_set=len({p.image_id for p in worked if p.work is Work.LABELLING}.intersection(test_set)),
        last_mos=_last_mos(failures, test_set, scores, n4),
        spent={work: Spent.on(p for p in worked if p.work is work) for work in Work},
        people=tuple(by_person(worked)),
        cells=dict(sorted(yields(Cell.of).items())),
        models=dict(sorted(yields(lambda chosen_by: chosen_by.competitor).items())),
        gain=gain,
    )


def found_by(
    candidates: Iterable[Candidate],
    key: Callable[[Provenance], Key],
    pieces: Iterable[Piece],
    scores: Mapping[str, Opinion],
    failures: Collection[str],
    good: float,
) -> dict[Key, Yield]:
    """What the images of M were worth, by `key` of the cells that chose them; an image counts once for each key."""
    rated: dict[str, list[Piece]] = {}
    for piece in pieces:
        if piece.work is Work.RATING:
            rated.setdefault(piece.image_id, []).append(piece)
    found: dict[Key, Yield] = {}
    for candidate in candidates:
        opinion = scores.get(candidate.image_id)
        mos = opinion.mos if opinion else None
        worth = Yield(
            images=1,
            spent=Spent.on(rated.get(candidate.image_id, ())),
            judged=int(mos is not None),
            good=int(mos is not None and mos >= good),
            vetoed=int(opinion is not None and mos is None),
            failures=int(candidate.image_id in failures),
        )
        for one in {key(chosen_by) for chosen_by in candidate.provenance}:
            found[one] = found.get(one, Yield()) + worth
    return found


def _last_mos(
    failures: Sequence[Failure], test_set: Collection[str], scores: Mapping[str, Opinion], n4: int
) -> float | None:
    if not failures and not test_set:
        return None
    if len(failures) >= n4:
        return failures[n4 - 1].mos
    others = sorted(o.mos for o in scores.values() if o.mos is not None and o.image_id not in test_set)
    return others[min(n4, len(others)) - 1] if others else None
