"""One round's M, T and S in a simulation, under one strategy (Algorithm 1, lines 6-17)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from mad_backend.competition import find_selection, main_classes
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.ratings import opinions, vetoed_by
from mad_backend.core.records import ModelVersion, Rating
from mad_backend.core.scores import PairScores, scores_of
from mad_backend.core.selection import Selection
from mad_backend.core.testset import draw_test_set
from mad_backend.pool.ids import image_keys
from training.leaks import leaked
from training.oracles import Oracle
from training.people import Report
from training.selecting import selection_windows
from training.simulation.quarantine import look_alikes
from training.simulation.records import RoundRecord
from training.simulation.strategies import Situation, Strategy, choose, target_scores
from training.simulation.world import World


@dataclass(frozen=True)
class Competition:
    """M of a target over the images that nobody used, and what raters say of each member."""

    selection: Selection
    ratings: tuple[Rating, ...]
    main_class: Mapping[str, int]


def choose_round(
    world: World,
    oracle: Oracle,
    target: ModelVersion,
    mix: Sequence[Strategy],
    earlier: Sequence[RoundRecord],
    report: Report,
) -> RoundRecord:
    """T is drawn from M of this target under every strategy, then the strategy chooses S; all label maps are there."""
    number = len(earlier) + 1
    spent = {i for r in earlier for i in (*r.failures, *r.test_set)} | set(world.open_images)
    report("M", 0, 1)
    found = compete(world, oracle, target, spent)
    seed = world.settings.seed * 1000 + number
    drawn = draw(world, found, earlier, seed)
    scores = target_scores(world, target, mix, report)
    hidden = {*drawn, *world.open_images, *(i for r in earlier for i in r.test_set)}
    closed = spent | hidden | look_alikes(world, hidden)
    situation = Situation(
        available=tuple(i for i in sorted(world.pool) if i not in closed),
        selection=tuple(c for c in found.selection.candidates if c.image_id not in closed),
        opinions=opinions(found.ratings),
        main_class=found.main_class,
        scores=scores,
        known=(*(i.image.image_id for i in world.s0), *(i for r in earlier for i in r.failures)),
        seed=seed,
    )
    chosen = choose(mix, situation, world.settings.rating.n4)
    asked = found.ratings if chosen.was_rated else ()
    return RoundRecord(
        number=number,
        started_from=target.version,
        version=f"{world.settings.models.name}@{number}",
        selected=len(found.selection.candidates),
        test_set=drawn,
        failures=chosen.image_ids,
        ratings=len(asked),
        rating_s=sum(r.lead_time_s or 0.0 for r in asked),
        mask_s=sum(oracle.seconds("mask", i) for i in chosen.image_ids),
    )


def draw(world: World, found: Competition, earlier: Sequence[RoundRecord], seed: int) -> tuple[str, ...]:
    """T from M, without images that look like what the target has learnt (method.md section 5)."""
    settings, candidates = world.settings.test_set, found.selection.candidates
    learnt = [*(i.image for i in world.s0), *(world.pool[i] for r in earlier for i in r.failures)]
    twins = leaked(world, learnt, [world.pool[c.image_id] for c in candidates], settings.near_duplicates)
    return tuple(
        draw_test_set(
            candidates,
            found.main_class,
            settings.drawn,
            seed,
            vetoed_by(found.ratings),
            settings.per_class or settings.drawn,
            {twin.image_id for twin in twins},
        )
    )


def compete(world: World, oracle: Oracle, target: ModelVersion, spent: set[str]) -> Competition:
    """M of the target, from label maps that are all there, and every rater's answer to every member."""
    key, rivals = world.target_key(target), world.competitor_keys()
    pairs = {name: [pair_scores(world, key, own, sorted(world.pool))] for name, own in rivals.items()}
    selection = find_selection(pairs, selection_windows(world), world.settings.selection, spent)
    ratings, names = [], [f"rater-{n + 1}" for n in range(world.settings.rating.raters)]
    with world.predictions.open(key) as pack:
        for done, candidate in enumerate(selection.candidates):
            image_id = candidate.image_id
            truth = oracle.drawing(image_id)
            label_map = world.grid.restore(pack.read(image_id), *truth.shape)
            at = datetime.fromtimestamp(done, UTC)
            ratings += [
                Rating(
                    image_id,
                    name,
                    oracle.opinion(image_id, name, label_map),
                    done,
                    at,
                    oracle.seconds("rating", name, image_id),
                )
                for name in names
            ]
    main = main_classes(selection.candidates, [key, *rivals.values()], world.predictions, world.labels)
    return Competition(selection, tuple(ratings), main)


def pair_scores(world: World, first: str, second: str, image_ids: Sequence[str]) -> PairScores:
    """Distances and areas of two models' stored label maps on the images that both answered."""
    ledger = world.open_ledger()
    with world.predictions.open(first) as one, world.predictions.open(second) as other:
        ids = [i for i in image_ids if i in one and i in other]
        contents, looks = ledger.content(image_keys(ids))
        joints = (joint_histogram(one.read(i), other.read(i), len(world.labels)) for i in ids)
        return scores_of(ids, np.asarray(contents), np.asarray(looks), joints)
