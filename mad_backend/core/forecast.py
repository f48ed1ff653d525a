"""What the next round will cost and bring if it is like the last ones, and whether it should be started at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from mad_backend.core.costs import Gain, RoundCost
from mad_backend.core.work import Spent, Work, total_hours

LAST: Final = 3
"""Rounds that a forecast looks back on."""


@dataclass(frozen=True)
class Forecast:
    """The next round, from medians of `rounds`; `spent` holds what people are expected to do.

    `failures` are images of S rated fair or worse, `gains` those of `rounds` that were measured.
    """

    rounds: tuple[int, ...]
    selected: int
    spent: Mapping[Work, Spent]
    failures: float
    gains: tuple[Gain, ...]

    @property
    def hours(self) -> float | None:
        """None where of one kind of work no time is known."""
        return total_hours(self.spent)

    @property
    def points(self) -> float | None:
        """Median gain, in points of mIoU; None where none was measured."""
        return median(gain.points for gain in self.gains) if self.gains else None


def forecast(rounds: Sequence[RoundCost], *, raters: int, n4: int, is_checked: bool) -> Forecast | None:
    """From the last three of `rounds`, all of them finished; None before the first.

    Ratings: the median |M|, each by `raters` raters (vetoes, which end an image early, are not foreseen); label maps:
    n4 and the median |T|; checks: as many. Each takes the median, over rounds, of the mean time of its kind.
    """
    last = rounds[-LAST:]
    if not last:
        return None
    selected = round(median(r.selected for r in last))
    maps = min(n4, selected) + round(median(r.test_set for r in last))
    pieces = {
        Work.RATING: selected * raters,
        Work.LABELLING: maps,
        Work.CHECKING: maps if is_checked else 0,
    }
    return Forecast(
        rounds=tuple(r.number for r in last),
        selected=selected,
        spent={work: _expected(count, [r.spent[work] for r in last]) for work, count in pieces.items()},
        failures=median(r.confirmed for r in last),
        gains=tuple(r.gain for r in last if r.gain),
    )


def stop_reasons(
    rounds: Sequence[RoundCost], *, n4: int, mos: float | None, points_per_hour: float | None, last: int = 1
) -> list[str]:
    """Why no further round is worth it, in words; empty where nothing speaks against one.

    `mos`: the n4-th image of the last S is rated above it. `points_per_hour`: each of the `last` rounds gained less on
    its T. None: that half of the rule is off.
    """
    return [*_few_failures(rounds, n4, mos), *_small_gains(rounds, points_per_hour, last)]


def _few_failures(rounds: Sequence[RoundCost], n4: int, limit: float | None) -> list[str]:
    cut = [(r, r.last_mos) for r in rounds if r.last_mos is not None]
    if limit is None or not cut or cut[-1][1] <= limit:
        return []
    found, mos = cut[-1]
    which = f"image {min(n4, found.selected)} of those rated worst"
    return [
        f"round {found.number} ran out of failures: {which} has MOS {mos:.2f}, above {limit:g} (stop.mos)"
    ]


def _small_gains(rounds: Sequence[RoundCost], floor: float | None, last: int) -> list[str]:
    gains = [(r.number, gain) for r in rounds if (gain := r.points_per_hour) is not None][-last:]
    if floor is None or len(gains) < last or any(gain >= floor for _, gain in gains):
        return []
    told = ", ".join(f"{gain:+.2f} in round {number}" for number, gain in gains)
    return [f"points of mIoU gained per hour of work: {told}, under {floor:g} (stop.points_per_hour)"]


def _expected(pieces: int, before: Sequence[Spent]) -> Spent:
    times = [each for spent in before if (each := spent.seconds_each) is not None]
    return Spent(pieces, 0, pieces * median(times)) if times else Spent(pieces, pieces)
