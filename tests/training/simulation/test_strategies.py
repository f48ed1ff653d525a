"""Strategies choose by what they are named after, within their share, and never what is closed to them."""

import numpy as np
import pytest

from mad_backend.core.acquisition import AcquisitionScores
from mad_backend.core.ratings import Opinion
from mad_backend.core.records import Candidate, Provenance, Role
from mad_backend.errors import SettingsError
from training.simulation.strategies import ALL, NEEDS_SCORES, Situation, Strategy, choose, parse_mix

POOL = tuple("abcdefgh")
SCORES = AcquisitionScores(
    POOL,
    entropy=np.array([1, 8, 3, 7, 2, 6, 4, 5], np.float32),
    margin=np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6], np.float32),
    mutual_information=np.array([5, 1, 6, 2, 7, 3, 8, 4], np.float32),
    embeddings=np.eye(8, 3, dtype=np.float32) + np.float32([[1, 0, 0]]),
    no_information="",
    unreadable={},
)


def candidate(image_id: str, d: float) -> Candidate:
    return Candidate(image_id, (Provenance("rival", 1, Role.TARGET, 1, d),))


def situation(available: tuple[str, ...] = POOL) -> Situation:
    """M is a to e with falling d; raters find e worst, then d, ..., and c out-of-domain; b was taken earlier."""
    mos = {"a": 5.0, "b": 4.0, "c": None, "d": 2.0, "e": 1.0}
    return Situation(
        available,
        tuple(candidate(i, 1 - n / 10) for n, i in enumerate("abcde") if i in available),
        {i: Opinion(i, value, 3) for i, value in mos.items()},
        dict.fromkeys(POOL, 1),
        SCORES,
        known=("h",),
        seed=7,
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mad", ["e", "d", "b"]),  # the lowest MOS; c is vetoed
        ("mad-unrated", ["a", "b", "c"]),  # the largest d
        ("entropy", ["b", "d", "f"]),
        ("margin", ["a", "c", "e"]),  # the smallest
        ("bald", ["g", "e", "c"]),
    ],
)
def test_a_strategy_takes_the_images_that_its_score_puts_first(name: str, wanted: list[str]) -> None:
    assert list(choose(parse_mix(name), situation(), 3).image_ids) == wanted


def test_k_center_takes_what_is_farthest_from_all_that_is_learnt() -> None:
    chosen = choose(parse_mix("k-center"), situation(), 2).image_ids
    # h, which was learnt, looks like d to g; a, b and c each lie in a direction of their own.
    assert set(chosen) <= {"a", "b", "c"}


@pytest.mark.parametrize("name", [*ALL, "mad+random", "entropy+k-center+random"])
def test_nothing_is_chosen_that_is_closed_or_twice(name: str) -> None:
    chosen = choose(parse_mix(name), situation(available=("a", "d", "f", "g")), 8).image_ids
    assert set(chosen) <= {"a", "d", "f", "g"}
    assert len(set(chosen)) == len(chosen)


def test_a_mix_shares_the_budget_and_gives_the_first_what_is_left_over() -> None:
    chosen = choose(parse_mix("entropy+mad"), situation(), 3)
    assert list(chosen.image_ids) == ["b", "d", "e"]
    assert chosen.was_rated
    assert not choose(parse_mix("entropy"), situation(), 3).was_rated


def test_random_depends_on_the_seed_alone() -> None:
    first = choose(parse_mix("random"), situation(), 4)
    assert first == choose(parse_mix("random"), situation(), 4)
    assert len(set(first.image_ids)) == 4


def test_every_strategy_says_whether_it_needs_scores() -> None:
    """Without scores the others still choose, and those that need them cannot."""
    blind = Situation(**{**vars(situation()), "scores": None})
    for strategy in ALL:
        if strategy in NEEDS_SCORES:
            with pytest.raises(AssertionError):
                choose((strategy,), blind, 2)
        else:
            assert choose((strategy,), blind, 2).image_ids


@pytest.mark.parametrize("name", ["entropi", "mad+", "mad+mad", ""])
def test_an_unknown_strategy_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(
        SettingsError, match="wanted mad, mad-unrated, random, entropy, margin, bald, k-center"
    ):
        parse_mix(name)
    assert parse_mix("mad+random") == (Strategy.MAD, Strategy.RANDOM)
