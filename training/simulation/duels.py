"""Table 2: the last versions of two strategies against each other, on the images they disagree on most (App. A)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mad_backend.competition import main_classes
from mad_backend.core.duel import DuelResult, score_duel
from mad_backend.core.records import ModelVersion
from mad_backend.core.statistics import Estimate
from training.duel import find_duel
from training.evaluate import matrices_of
from training.selecting import selection_windows
from training.simulation.board import Plan
from training.simulation.choosing import pair_scores
from training.simulation.pooled import Part, pooled_difference
from training.simulation.records import Trial
from training.simulation.results import Spread
from training.simulation.world import World


@dataclass(frozen=True)
class SimulatedDuel:
    """The duels of two strategies under every seed; `wins` and `losses` are images, summed over seeds.

    `over_images`: the difference on the images of all seeds together, with its interval over images.
    """

    first: str
    second: str
    budget: int
    first_miou: Spread
    second_miou: Spread
    difference: Spread
    over_images: Estimate
    wins: int
    losses: int


def hold_duels(plan: Plan, trials: Sequence[Trial]) -> list[SimulatedDuel]:
    """The first strategy against each other one, seed by seed."""
    by_place = {(t.record.strategy, t.record.seed): t for t in trials}
    found = []
    for second in plan.strategies[1:]:
        parts, results = [], []
        for seed in range(plan.seeds):
            world = _world(plan, seed)
            part = _duel(world, by_place[plan.strategies[0], seed], by_place[second, seed])
            parts.append(part)
            results.append(score_duel(part[1], part[2], world.counted_classes))
        found.append(_together(plan, second, results, pooled_difference(parts, world.counted_classes)))
    return found


def _together(plan: Plan, second: str, results: Sequence[DuelResult], over_images: Estimate) -> SimulatedDuel:
    return SimulatedDuel(
        plan.strategies[0],
        second,
        results[0].images,
        Spread.of([r.first.value for r in results]),
        Spread.of([r.second.value for r in results]),
        Spread.of([r.difference.value for r in results]),
        over_images,
        sum(r.wins for r in results),
        sum(r.losses for r in results),
    )


def _world(plan: Plan, seed: int) -> World:
    return World.open_for(plan.config, plan.folder(plan.strategies[0], seed), plan.cache, seed)


def _duel(world: World, first: Trial, second: Trial) -> Part:
    """Images of the pool that neither learnt, and how both do on them; labels are the truth."""
    keys = [world.target_key(_last(trial)) for trial in (first, second)]
    learnt = {i for trial in (first, second) for r in trial.record.rounds for i in r.failures}
    scores = pair_scores(world, keys[0], keys[1], sorted(world.pool))
    images = find_duel(
        [scores],
        selection_windows(world),
        world.settings.selection,
        learnt,
        lambda candidates: main_classes(candidates, keys, world.predictions, world.labels),
        world.settings.simulation.duel,
        world.settings.seed,
        world.settings.test_set.per_class,
    )
    ids = [image.image_id for image in images]
    items = world.labelled(ids)
    return ids, matrices_of(world, keys[0], items), matrices_of(world, keys[1], items)


def _last(trial: Trial) -> ModelVersion:
    record = trial.record
    version = record.versions[-1]
    return ModelVersion(version, len(record.rounds), record.paths[version], datetime.fromtimestamp(0, UTC))
