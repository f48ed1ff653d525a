"""The forecast is the median of the last rounds; the stop rule speaks where a limit is passed, and only there."""

import pytest

from mad_backend.core.costs import Gain, RoundCost
from mad_backend.core.forecast import forecast, stop_reasons
from mad_backend.core.statistics import Estimate
from mad_backend.core.work import Spent, Work


def made(
    number: int, *, mos: float | None = 2.0, points: float | None = None, selected: int = 10
) -> RoundCost:
    """4 images in S, 2 in T; an hour of work in all."""
    gain = None if points is None else Gain(f"T({number})", Estimate(points / 100, 0.0, 0.1))
    spent = {
        Work.RATING: Spent(30, 10, 20 * 30.0),
        Work.LABELLING: Spent(6, 0, 1800.0),
        Work.CHECKING: Spent(6, 0, 900.0),
    }
    return RoundCost(
        number=number,
        selected=selected,
        failures=4,
        confirmed=number,
        test_set=2,
        last_mos=mos,
        spent=spent,
        people=(),
        cells={},
        models={},
        gain=gain,
    )


def test_the_next_round_is_the_median_of_the_last_three() -> None:
    rounds = [made(n, points=points, selected=10 * n) for n, points in enumerate((99, 4, -1, 2), start=1)]
    found = forecast(rounds, raters=3, n4=4, is_checked=True)
    assert found
    assert found.rounds == (2, 3, 4)
    assert found.selected == 30
    assert found.spent == {
        Work.RATING: Spent(90, 0, 90 * 30.0),
        Work.LABELLING: Spent(6, 0, 6 * 300.0),
        Work.CHECKING: Spent(6, 0, 6 * 150.0),
    }
    assert found.hours == pytest.approx((2700 + 1800 + 900) / 3600)
    assert found.failures == 3
    assert found.points == pytest.approx(2)


def test_without_a_finished_round_there_is_no_forecast_and_without_times_no_hours() -> None:
    assert forecast([], raters=3, n4=4, is_checked=True) is None
    untimed = made(1)
    untimed = RoundCost(**{**vars(untimed), "spent": {**untimed.spent, Work.CHECKING: Spent(6, 6)}})
    found = forecast([untimed], raters=3, n4=4, is_checked=True)
    assert found
    assert (found.hours, found.points) == (None, None)
    unchecked = forecast([untimed], raters=3, n4=4, is_checked=False)
    assert unchecked
    assert unchecked.hours == pytest.approx((900 + 1800) / 3600)


def reasons(
    *rounds: RoundCost, mos: float | None = 3.0, floor: float | None = None, last: int = 1
) -> list[str]:
    return stop_reasons(rounds, n4=4, mos=mos, points_per_hour=floor, last=last)


def test_it_stops_when_the_last_image_of_s_is_above_fair() -> None:
    assert reasons() == []
    assert reasons(made(1, mos=3.0)) == [], "fair is not above fair"
    assert reasons(made(1, mos=10 / 3)) == [
        "round 1 ran out of failures: image 4 of those rated worst has MOS 3.33, above 3 (stop.mos)"
    ]
    assert reasons(made(1, mos=10 / 3), made(2, mos=2.0)) == [], "only the last S counts"
    assert reasons(made(1, mos=10 / 3), made(2, mos=None)) != [], "round 2 is not cut yet"
    assert reasons(made(1, mos=5.0), mos=None) == []


def test_it_stops_when_the_last_rounds_all_gained_less_than_the_floor() -> None:
    small, large = made(1, points=0.5), made(2, points=3)
    assert reasons(small) == [], "off"
    assert reasons(small, floor=1) == [
        "points of mIoU gained per hour of work: +0.50 in round 1, under 1 (stop.points_per_hour)"
    ]
    assert reasons(small, large, floor=1) == []
    assert reasons(small, floor=1, last=2) == [], "one round is not two"
    assert len(reasons(large, small, made(3, points=-1), floor=1, last=2)) == 1
    assert reasons(large, small, floor=1, last=2) == []
    assert reasons(small, made(2), floor=1) != [], "round 2 is not measured yet"
    assert len(reasons(made(1, mos=4.0, points=0.5), floor=1)) == 2
