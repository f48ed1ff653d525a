"""What is labelled next: MAD, and everything it must be compared with under the same budget of label maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.acquisition import AcquisitionScores, highest, k_center
from mad_backend.core.ratings import Opinion, cut
from mad_backend.core.records import Candidate, ModelVersion
from mad_backend.errors import MadError, SettingsError
from training.acquisition import acquisition_scores
from training.people import Report
from training.simulation.world import World


class Strategy(StrEnum):
    """One way to choose.

    `mad`: the paper's S, the images of M with the lowest MOS. `mad-unrated`: the images of M with the largest d, nobody
    rates. `random`: any. `entropy` (App. A), `margin` and `bald` (MC dropout): the images of which the target is least
    sure, on the mean over pixels. `k-center`: the images that the target's features are farthest from (Sener and
    Savarese 2018).
    """

    MAD = "mad"
    MAD_UNRATED = "mad-unrated"
    RANDOM = "random"
    ENTROPY = "entropy"
    MARGIN = "margin"
    BALD = "bald"
    K_CENTER = "k-center"


ALL = tuple(Strategy)
NEEDS_SCORES = frozenset({Strategy.ENTROPY, Strategy.MARGIN, Strategy.BALD, Strategy.K_CENTER})
"""Strategies that ask the target for more than label maps."""


def parse_mix(name: str) -> tuple[Strategy, ...]:
    """The strategies of "mad" or, sharing the budget, of "mad+random"; raises SettingsError naming those there are."""
    parts = name.split("+")
    unknown = [part for part in parts if part not in ALL]
    if unknown or len(set(parts)) < len(parts):
        raise SettingsError(
            f'"{name}" is no strategy; wanted {", ".join(ALL)}, or several of them that share the budget: mad+random'
        )
    return tuple(Strategy(part) for part in parts)


@dataclass(frozen=True)
class Situation:
    """What a strategy may know before round `number`'s label maps are drawn.

    `available` are the images that may be chosen: of D, without W, every T and every earlier S. `selection` is M
    without T, `opinions` what raters would say of it by image id. `scores` are the target's, of all images.
    """

    available: tuple[str, ...]
    selection: tuple[Candidate, ...]
    opinions: Mapping[str, Opinion]
    main_class: Mapping[str, int]
    scores: AcquisitionScores | None
    known: tuple[str, ...]
    """S(0) and earlier S: images whose label maps were learnt."""
    seed: int


@dataclass(frozen=True)
class Chosen:
    """S, and whether M was rated for it."""

    image_ids: tuple[str, ...]
    was_rated: bool


Rule: TypeAlias = Callable[[Situation, Sequence[str], int], Sequence[str]]
"""(situation, images that may be chosen, how many) -> S."""


def choose(mix: Sequence[Strategy], situation: Situation, budget: int) -> Chosen:
    """At most `budget` images: the parts of a mix take equal shares in turn, the first what is left over."""
    taken: list[str] = []
    share, rest = divmod(budget, len(mix))
    for place, strategy in enumerate(mix):
        open_to_it = [i for i in situation.available if i not in set(taken)]
        taken += _RULES[strategy](situation, open_to_it, share + (place < rest))
    return Chosen(tuple(taken), Strategy.MAD in mix)


def target_scores(
    world: World, target: ModelVersion, mix: Sequence[Strategy], report: Report
) -> AcquisitionScores | None:
    """What the target says of all images of S(0) and D, as far as strategies ask; raises MadError where it cannot."""
    if not NEEDS_SCORES.intersection(mix):
        return None
    images = [*(i.image for i in world.s0), *world.pool.values()]
    scores = acquisition_scores(world, target, images, report, bald=Strategy.BALD in mix)
    if Strategy.BALD in mix and scores.mutual_information is None:
        raise MadError(f"there is no BALD of {target.version}, {scores.no_information}; leave out bald")
    return scores


def _mad(situation: Situation, open_to_it: Sequence[str], count: int) -> Sequence[str]:
    barred = set(situation.opinions).difference(open_to_it)
    found = cut(situation.selection, situation.opinions, situation.main_class, count, barred)
    return [failure.image_id for failure in found.failures]


def _mad_unrated(situation: Situation, open_to_it: Sequence[str], count: int) -> Sequence[str]:
    members = [c for c in situation.selection if c.image_id in set(open_to_it)]
    return highest([c.image_id for c in members], np.array([c.discrepancy for c in members]), count)


def _random(situation: Situation, open_to_it: Sequence[str], count: int) -> Sequence[str]:
    drawn = np.random.default_rng(situation.seed).permutation(len(open_to_it))[:count]
    return [open_to_it[i] for i in drawn]


def _k_center(situation: Situation, open_to_it: Sequence[str], count: int) -> Sequence[str]:
    scores = _scores(situation)
    readable, rows = _rows(scores, open_to_it)
    _, known = _rows(scores, situation.known)
    return [readable[i] for i in k_center(scores.embeddings[rows], scores.embeddings[known], count)]


def _by(score: Callable[[AcquisitionScores], NDArray[np.float32]]) -> Rule:
    def rule(situation: Situation, open_to_it: Sequence[str], count: int) -> Sequence[str]:
        scores = _scores(situation)
        readable, rows = _rows(scores, open_to_it)
        return highest(readable, score(scores)[rows], count)

    return rule


def _information(scores: AcquisitionScores) -> NDArray[np.float32]:
    assert scores.mutual_information is not None
    return scores.mutual_information


def _scores(situation: Situation) -> AcquisitionScores:
    assert situation.scores is not None
    return situation.scores


def _rows(scores: AcquisitionScores, image_ids: Sequence[str]) -> tuple[list[str], list[int]]:
    """The images of which there are scores, and their rows."""
    places = {image_id: row for row, image_id in enumerate(scores.image_ids)}
    readable = [i for i in image_ids if i in places]
    return readable, [places[i] for i in readable]


_RULES: dict[Strategy, Rule] = {
    Strategy.MAD: _mad,
    Strategy.MAD_UNRATED: _mad_unrated,
    Strategy.RANDOM: _random,
    Strategy.ENTROPY: _by(lambda scores: scores.entropy),
    Strategy.MARGIN: _by(lambda scores: -scores.margin),
    Strategy.BALD: _by(_information),
    Strategy.K_CENTER: _k_center,
}
