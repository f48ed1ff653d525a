"""Time and yield of a round, counted by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from mad_backend.core.costs import Cell, Gain, RoundCost, Yield, round_cost
from mad_backend.core.records import Candidate, Failure, Provenance, Rating, Role
from mad_backend.core.statistics import Estimate
from mad_backend.core.work import Piece, Spent, Work

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CAR, BOAT = 1, 2
M = [
    Candidate(
        "a", (Provenance("g", CAR, Role.TARGET, 1, 0.9), Provenance("h", CAR, Role.COMPETITOR, 2, 0.8))
    ),
    Candidate("b", (Provenance("g", CAR, Role.TARGET, 2, 0.7), Provenance("g", BOAT, Role.TARGET, 1, 0.7))),
    Candidate("c", (Provenance("h", BOAT, Role.TARGET, 1, 0.6),)),
    Candidate("d", (Provenance("g", BOAT, Role.COMPETITOR, 1, 0.5),)),
]
"""a is poor, b is good, c is vetoed, d is bad and drawn for T."""
RATINGS = [
    Rating("a", "ann", 2, 1, NOON, 30.0),
    Rating("a", "bob", 3, 2, NOON, 30.0),
    Rating("b", "ann", 4, 3, NOON, 20.0),
    Rating("b", "bob", 5, 4, NOON, None),
    Rating("c", "ann", None, 5, NOON, 10.0),
    Rating("d", "ann", 1, 6, NOON, 20.0),
    Rating("d", "bob", 1, 7, NOON, 50.0),
]
WORK = [
    *(Piece(Work.RATING, r.rater, r.image_id, r.lead_time_s, r.is_veto) for r in RATINGS),
    Piece(Work.LABELLING, "ann", "a", 600.0),
    Piece(Work.LABELLING, "bob", "d", 300.0),
    Piece(Work.CHECKING, "bob", "a", 60.0),
]
UNTIMED = [Piece(Work.RATING, "ann", "a", None), Piece(Work.RATING, "bob", "a", None)]
GAIN = Gain("T(1)", Estimate(0.05, 0.01, 0.09))


def cost(n4: int = 1, ratings: Sequence[Rating] = RATINGS, idle_s: float | None = 1000.0) -> RoundCost:
    return round_cost(1, M, WORK, ratings, [Failure("a", 2.5)], ["d"], GAIN, n4=n4, idle_s=idle_s)


def test_sizes_and_hours_of_a_round() -> None:
    found = cost()
    assert (found.selected, found.failures, found.confirmed, found.test_set) == (4, 1, 1, 1)
    assert found.spent == {
        Work.RATING: Spent(7, 1, 160.0),
        Work.LABELLING: Spent(2, 0, 900.0),
        Work.CHECKING: Spent(1, 0, 60.0),
    }
    assert found.total == Spent(10, 1, 1120.0)
    # The rating of unknown time takes 160/6 s, as the others do on average.
    hours = (7 * 160 / 6 + 900 + 60) / 3600
    assert found.hours == pytest.approx(hours)
    assert found.points_per_hour == pytest.approx(5 / hours)


def test_people_by_kind_of_work_with_median_total_and_vetoes() -> None:
    told = [(p.work, p.person, p.spent, p.median_s, p.vetoes) for p in cost().people]
    assert told == [
        (Work.RATING, "ann", Spent(4, 0, 80.0), 20.0, 1),
        (Work.RATING, "bob", Spent(3, 1, 80.0), 40.0, 0),
        (Work.LABELLING, "ann", Spent(1, 0, 600.0), 600.0, 0),
        (Work.LABELLING, "bob", Spent(1, 0, 300.0), 300.0, 0),
        (Work.CHECKING, "bob", Spent(1, 0, 60.0), 60.0, 0),
    ]


def test_an_image_counts_for_every_cell_and_once_for_every_model_that_chose_it() -> None:
    found = cost()
    a, b, c, d = (
        Yield(1, Spent(2, 0, 60.0), judged=1, failures=1),
        Yield(1, Spent(2, 1, 20.0), judged=1, good=1),
        Yield(1, Spent(1, 0, 10.0), vetoed=1),
        Yield(1, Spent(2, 0, 70.0), judged=1),
    )
    assert found.cells == {
        Cell("g", CAR, Role.TARGET): a + b,
        Cell("g", BOAT, Role.COMPETITOR): d,
        Cell("g", BOAT, Role.TARGET): b,
        Cell("h", CAR, Role.COMPETITOR): a,
        Cell("h", BOAT, Role.TARGET): c,
    }
    assert found.models == {"g": a + b + d, "h": a + c}
    one = found.cells[Cell("g", CAR, Role.TARGET)]
    assert one.false_positive_share == 0.5
    assert one.failures_per_hour == pytest.approx(1 / (4 * (80 / 3) / 3600))
    vetoed = found.cells[Cell("h", BOAT, Role.TARGET)]
    assert vetoed.false_positive_share is None
    assert vetoed.failures_per_hour == 0


def test_time_that_nobody_knows_is_unknown_and_not_nought() -> None:
    unknown = Spent.on(UNTIMED)
    assert unknown == Spent(2, 2, 0.0)
    assert (unknown.hours, unknown.seconds_each) == (None, None)
    assert Yield(1, unknown, judged=1, failures=1).failures_per_hour is None
    assert Spent().hours == 0
    found = round_cost(1, M, UNTIMED, RATINGS, [Failure("a", 2.5)], ["d"], GAIN, n4=1)
    assert (found.hours, found.points_per_hour) == (None, None)


def test_the_last_mos_is_that_of_the_n4th_image_outside_t() -> None:
    assert cost(n4=1).last_mos == 2.5
    # S has one image only, because of a ceiling or because M has no more: b is next, and d is of T.
    assert cost(n4=2).last_mos == 4.5
    assert cost(n4=9).last_mos == 4.5
    assert round_cost(1, M, WORK, RATINGS, [], [], None, n4=1).last_mos is None, "nothing is cut yet"
    assert round_cost(1, M, [], RATINGS[4:], [], ["d"], None, n4=1).last_mos is None, "only vetoes and T"
