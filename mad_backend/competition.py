"""From scores to M, and from M's ratings to T and S, each recorded for the round."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mad_backend.core import ratings as ratings_rules
from mad_backend.core.labels import LabelSet
from mad_backend.core.looks import Contents, Twin, find_twins, name_twins
from mad_backend.core.records import Candidate
from mad_backend.core.scores import PairScores
from mad_backend.core.selection import Selection, Window, select
from mad_backend.core.testset import draw_test_set, main_foreground, majority
from mad_backend.errors import PoolError
from mad_backend.pool.predictions import PredictionStore
from mad_backend.pool.scores import ScoreStore
from mad_backend.settings import RatingSettings, SelectionSettings, TestSetSettings
from mad_backend.store.store import Store

log = logging.getLogger(__name__)

CROWDED = 0.5
"""Share of what T leaves of M, above which S is hardly the raters' choice."""


@dataclass(frozen=True)
class CutSummary:
    """What the cut gave, for logs and reports; `alike` are images of M kept out of S, since T has such an image."""

    failures: int
    test_set: int
    vetoed: int
    tied: int
    tied_in: int
    alike: tuple[Twin, ...]


@dataclass(frozen=True)
class StoredPair:
    """All scores of a target and a competing model by key, read anew each time."""

    scores: ScoreStore
    target: str
    competitor: str

    def __iter__(self) -> Iterator[PairScores]:
        return self.scores.read(self.target, self.competitor)


def find_selection(
    pairs: Mapping[str, Iterable[PairScores]],
    windows: Mapping[int, Window],
    settings: SelectionSettings,
    excluded: Collection[str],
) -> Selection:
    """M, Eq. (2), recorded nowhere; `pairs` by competitor. Images that left the pool are not among the scores."""
    return select(pairs, windows, settings.n3, excluded, settings.metric, settings.near_duplicates)


def choose_selection(
    store: Store,
    number: int,
    pairs: Mapping[str, StoredPair],
    windows: Mapping[int, Window],
    settings: SelectionSettings,
    quarantined: Collection[str] = (),
) -> Selection:
    """M of round `number`, recorded with its provenance. Images of any S or T and vetoed ones are left out.

    So are `quarantined` ones, which an earlier test set has by another name.
    """
    spent = store.choices.spent().union(quarantined)
    selection = find_selection(pairs, windows, settings, spent)
    store.choices.record_selection(number, selection.candidates)
    log.info(
        "round %d: M has %d images from %d cells, %d of them short of %d; %d were spent, vetoed or in quarantine",
        number,
        len(selection.candidates),
        len(selection.cells),
        len(selection.short_cells),
        settings.n3,
        len(spent),
    )
    return selection


def little_choice(members: int, rating: RatingSettings, test_set: TestSetSettings) -> str | None:
    """Says so where S would take most of the `members` of M that T leaves: their ratings would decide nothing."""
    left = max(0, members - test_set.drawn)
    if rating.n4 <= CROWDED * left:
        return None
    return (
        f"S takes {min(rating.n4, left)} of the {left} images of M that T leaves, whatever their ratings are; to let "
        "raters choose, raise selection.n3 or lower rating.n4"
    )


def main_classes(
    candidates: Sequence[Candidate], keys: Sequence[str], predictions: PredictionStore, labels: LabelSet
) -> dict[str, int]:
    """Image id -> the main foreground object most models (by key, the target among them) see (method.md section 5)."""
    votes: dict[str, list[int]] = {c.image_id: [] for c in candidates}
    for key in keys:
        with predictions.open(key) as pack:
            for image_id, given in votes.items():
                if image_id in pack:
                    given.append(main_foreground(pack.read(image_id), labels))
    return {image_id: majority(given) for image_id, given in votes.items()}


def cut_round(
    store: Store,
    number: int,
    seed: int,
    main_class: Mapping[str, int],
    rating: RatingSettings,
    test_set: TestSetSettings,
    contents: Contents,
    refused: Sequence[Twin] = (),
) -> CutSummary:
    """T, then S, from M and its ratings, recorded once and for all (method.md sections 3 and 5).

    T is drawn first, without looking at scores, and removed from S with what looks like it by the `contents` of M.
    Images `refused` for T, since a model has learnt them by another name, may go to S. Raises PoolError where no
    other is left.
    """
    candidates = store.choices.selection(number)
    given = store.remote.ratings(number)
    vetoed = ratings_rules.vetoed_by(given)
    size, barred = test_set.drawn, {twin.image_id for twin in refused}
    drawn = draw_test_set(
        candidates, main_class, size, seed, vetoed, test_set.per_class or size, refused=barred
    )
    if barred and not drawn:
        raise PoolError(
            f"round {number}: T would be empty, since every image of M that was not vetoed was learnt before or looks "
            f"like one that was: {name_twins(refused)}; where they are different ones, lower "
            "test_set.near_duplicates, or enlarge the pool"
        )
    alike = find_twins(
        contents.only({c.image_id for c in candidates}.difference(drawn)),
        contents.only(drawn),
        test_set.near_duplicates,
    )
    cut = ratings_rules.cut(
        candidates,
        ratings_rules.opinions(given),
        main_class,
        rating.n4,
        {*drawn, *(twin.image_id for twin in alike)},
        rating.mos_ceiling,
    )
    store.choices.record_cut(number, cut.failures, drawn, vetoed)
    log.info(
        "round %d: T has %d images, S %d; %d vetoed; the cut split %d images of one MOS, %d of them are in S",
        number,
        len(drawn),
        len(cut.failures),
        len(vetoed),
        cut.tied,
        cut.tied_in,
    )
    return CutSummary(len(cut.failures), len(drawn), len(vetoed), cut.tied, cut.tied_in, tuple(alike))
