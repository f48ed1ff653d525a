"""From ratings to S: mean opinion scores, vetoes and the cut (Sec. 3.1, 4.1)."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mad_backend.core.records import Candidate, Failure, Rating


@dataclass(frozen=True)
class Opinion:
    """What the raters said of one image; `mos` is the mean over raters, or None when it was vetoed."""

    image_id: str
    mos: float | None
    ratings: int


@dataclass(frozen=True)
class Cut:
    """S with the lowest MOS first; `tied` images shared the MOS at which the cut fell, `tied_in` of them are in S."""

    failures: tuple[Failure, ...]
    tied: int
    tied_in: int


def vetoed_by(ratings: Iterable[Rating]) -> dict[str, str]:
    """Image id -> the first rater (by time) who called it out-of-domain; one is enough (Sec. 4.1)."""
    found: dict[str, str] = {}
    for rating in sorted(ratings, key=lambda r: (r.created_at, r.rater)):
        if rating.is_veto:
            found.setdefault(rating.image_id, rating.rater)
    return found


def opinions(ratings: Iterable[Rating]) -> dict[str, Opinion]:
    """MOS = mean over raters (Sec. 4.1), by image id."""
    by_image: dict[str, list[Rating]] = {}
    for rating in ratings:
        by_image.setdefault(rating.image_id, []).append(rating)
    return {image_id: _opinion(image_id, given) for image_id, given in sorted(by_image.items())}


def is_rated(given: Sequence[Rating], wanted: int) -> bool:
    """True with the wanted number of ratings, or once vetoed (method.md section 3)."""
    return len(given) >= wanted or any(r.is_veto for r in given)


def cut(
    candidates: Sequence[Candidate],
    scores: Mapping[str, Opinion],
    main_class: Mapping[str, int],
    n4: int,
    barred: Collection[str] = (),
    mos_ceiling: float | None = None,
) -> Cut:
    """S: the n4 images of M with the lowest MOS (Sec. 3.1).

    Out: vetoed and unrated images, those in `barred` (T), and those above `mos_ceiling`. Ties: larger d first, then
    the class least represented in S so far (`main_class` by image id), then image id.
    """
    pool = [
        (opinion.mos, candidate)
        for candidate in candidates
        if candidate.image_id not in barred
        and (opinion := scores.get(candidate.image_id)) is not None
        and opinion.mos is not None
        and (mos_ceiling is None or opinion.mos <= mos_ceiling)
    ]
    taken: list[Failure] = []
    represented: Counter[int] = Counter()

    def order(entry: tuple[float, Candidate]) -> tuple[float, float, int, str]:
        mos, candidate = entry
        return (
            mos,
            -candidate.discrepancy,
            represented[main_class.get(candidate.image_id, 0)],
            candidate.image_id,
        )

    # One at a time: each choice changes which class is least represented.
    while pool and len(taken) < n4:
        entry = min(pool, key=order)
        pool.remove(entry)
        taken.append(Failure(entry[1].image_id, entry[0]))
        represented[main_class.get(entry[1].image_id, 0)] += 1
    last = taken[-1].mos if taken and pool else None
    tied_in = sum(f.mos == last for f in taken)
    tied_out = sum(mos == last for mos, _ in pool)
    return Cut(tuple(taken), tied_in + tied_out if tied_out else 0, tied_in if tied_out else 0)


def _opinion(image_id: str, given: Sequence[Rating]) -> Opinion:
    values = [r.score for r in given if r.score is not None]
    vetoed = len(values) < len(given)
    return Opinion(image_id, None if vetoed or not values else sum(values) / len(values), len(given))
