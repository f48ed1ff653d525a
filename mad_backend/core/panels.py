"""Whose answers count: the panel of each image, its vetoes, and who may answer in a seat's project (Sec. 4.1)."""

from collections.abc import Iterable, Mapping, Sequence

from mad_backend.core.records import Answer, Departure, Rating


def counted(answers: Iterable[Answer], departures: Iterable[Departure], wanted: int) -> list[Rating]:
    """The ratings that count, by image id, within an image by time of each person's first.

    Of one person the latest counts; of more than `wanted` people the first ones by time, and every veto. In a seat's
    project one rating counts, of whom the seat belongs or belonged to.
    """
    left = {d.rater: d for d in departures}
    given: dict[str, dict[str, list[Rating]]] = {}
    for answer in answers:
        if answer.is_opinion and objection(answer, left) is None:
            given.setdefault(answer.image_id, {}).setdefault(answer.seat, []).append(answer.rating())
    found = []
    for image_id in sorted(given):
        for seat, ratings in sorted(given[image_id].items()):
            found += _panel(ratings, 1 if seat else wanted)
    return found


def objection(answer: Answer, left: Mapping[str, Departure]) -> str | None:
    """Why an answer does not count whatever it says, or None; `left` is rater -> departure."""
    departure = left.get(answer.rater)
    if departure and departure.discarded:
        return f"{answer.rater} left, and what they had answered was discarded"
    if departure and answer.created_at > departure.at:
        return f"{answer.rater} had left before"
    if answer.seat and answer.rater not in seat_holders(answer.seat, left):
        return f"the project is that of {seat_holders(answer.seat, left)[-1]}"
    return None


def seat_holders(seat: str, left: Mapping[str, Departure]) -> list[str]:
    """Whom a seat belonged to, one after the other; the last has it now. A seat is called after the first."""
    holders = [seat]
    while (departure := left.get(holders[-1])) and departure.replaced_by not in (None, *holders):
        holders.append(str(departure.replaced_by))
    return holders


def _panel(ratings: Sequence[Rating], wanted: int) -> list[Rating]:
    latest: dict[str, Rating] = {}
    for rating in sorted(ratings, key=lambda r: (r.created_at, r.annotation_id)):
        # Assigning again keeps the place of the first time, so nobody loses the seat by rating again.
        latest[rating.rater] = rating
    return [r for place, r in enumerate(latest.values()) if place < wanted or r.is_veto]
