"""Idle time, cut off by hand."""

from collections.abc import Sequence

from mad_backend.core.work import Piece, Work, without_idle


def seconds(*times: float | None, person: str = "ann", work: Work = Work.RATING) -> list[Piece]:
    return [Piece(work, person, f"{n}", s) for n, s in enumerate(times)]


def times(pieces: Sequence[Piece]) -> list[float | None]:
    return [p.seconds for p in pieces]


def test_idle_time_is_cut_at_five_medians_of_the_person_and_kind() -> None:
    slow = seconds(100, 100, 100, 100, 400, person="bob")
    found = without_idle([*seconds(4, 5, 6, 5, 3600), *slow, *seconds(900, work=Work.LABELLING)])
    assert times(found) == [4, 5, 6, 5, 25, 100, 100, 100, 100, 400, 900]


def test_with_few_times_of_a_person_everybodys_median_counts() -> None:
    few = seconds(500, None, person="bob")
    assert times(without_idle([*seconds(4, 5, 6, 5, 5), *few])) == [4, 5, 6, 5, 5, 25, None]


def test_a_given_cap_counts_for_everybody_and_every_kind() -> None:
    pieces = [*seconds(4, 5, 6, 5, 3600), *seconds(900, work=Work.LABELLING)]
    assert times(without_idle(pieces, idle_s=60)) == [4, 5, 6, 5, 60, 60]
    assert without_idle([]) == []
