"""What the trials of a simulation say together: means over seeds, differences paired by seed, what was found."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.metrics import dataset_miou, mean_iou
from mad_backend.core.statistics import Estimate, student_quantile
from training.evaluate import T0
from training.simulation.gates import decisions
from training.simulation.pooled import gain_over_images, lead_over_images
from training.simulation.records import OPEN, Trial
from training.simulation.world import World

FAILED = 0.5
"""Image mIoU below which an image counts as a failure that was found."""
SHOWN_PAIRS = 8


@dataclass(frozen=True)
class Spread:
    """A figure under each seed, its mean, and the 95 % interval of Student's t over seeds; NaN for less than two.

    Seeds change W, every T, the answers of people and the training, but not the pool or f(0): the interval is for
    other seeds, not for other data.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value a seed."""
        mean, n = float(np.mean(values)) if values else math.nan, len(values)
        reach = math.nan
        if n > 1:
            reach = student_quantile(0.95, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
        return cls(tuple(values), mean, mean - reach, mean + reach)


@dataclass(frozen=True)
class Point:
    """f(`number`) of one strategy on one image set: dataset mIoU, and its gain over f(0), after so many labels.

    `over_images` is the gain on the images of all seeds together, with its interval over images.
    """

    strategy: str
    image_set: str
    number: int
    labels: float
    hours: float
    miou: Spread
    gain: Spread
    over_images: Estimate


@dataclass(frozen=True)
class Lead:
    """How much more the first strategy's f(`number`) gained on an image set than another's, paired by seed.

    `over_images`: on the images of all seeds together, paired by image, with its interval over images.
    """

    strategy: str
    over: str
    number: int
    image_set: str
    difference: Spread
    over_images: Estimate


@dataclass(frozen=True)
class Pair:
    """Pixels of one class taken for another, as a share of all wrong pixels in S."""

    truth: str
    prediction: str
    share: float


@dataclass(frozen=True)
class Finding:
    """What a strategy sent to be labelled: how bad the target was there, and which classes it confused.

    `shared` is the share of its images that the first strategy chose too.
    """

    strategy: str
    images: float
    image_miou: Spread
    failed: Spread
    shared: Spread
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Row:
    """One line of Table 1: a model of the first strategy's trials on each image set, mean over seeds."""

    model: str
    mious: Mapping[str, Spread]


@dataclass(frozen=True)
class Results:
    """Everything a simulation shows; `strategies` in the order asked for, the first one being led by."""

    strategies: tuple[str, ...]
    seeds: int
    rounds: int
    points: tuple[Point, ...]
    leads: tuple[Lead, ...]
    findings: tuple[Finding, ...]
    table_1: tuple[Row, ...]
    lead_over_best: Mapping[str, Spread]
    """T(i) -> f(i) less the best competing model there, by the first strategy."""
    goal: float
    labels_to_goal: Mapping[str, float | None]
    """Strategy -> label maps after which the mean curve on W meets `goal`, None where it never does."""
    promoted: Mapping[str, tuple[int, ...]]
    """Strategy -> in how many seeds the gate lets f(1), f(2), ... pass."""
    compute_s: float


def gather(trials: Sequence[Trial], world: World, goal: float | None) -> Results:
    """From finished trials, every strategy under the same seeds; `goal` None: what every strategy reaches on W."""
    class_names, counted = world.labels.names, world.counted_classes
    by_strategy: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda t: t.record.seed):
        by_strategy.setdefault(trial.record.strategy, []).append(trial)
    strategies = tuple(dict.fromkeys(t.record.strategy for t in trials))
    first = by_strategy[strategies[0]]
    rounds = len(first[0].record.rounds)
    sets = (OPEN, T0, *(f"T({n + 1})" for n in range(rounds)))
    points = [
        _point(strategy, by_strategy[strategy], name, number, counted)
        for strategy in strategies
        for name in sets
        for number in range(rounds + 1)
    ]
    curves = {s: [p for p in points if p.strategy == s and p.image_set == OPEN] for s in strategies}
    wanted = min(c[-1].miou.mean for c in curves.values()) if goal is None else goal
    return Results(
        strategies,
        len(first),
        rounds,
        tuple(points),
        tuple(_leads(by_strategy, strategies, sets[:3], rounds, counted)),
        tuple(_finding(s, by_strategy[s], first, class_names) for s in strategies),
        tuple(_table_1(first, sets[1:], counted)),
        {f"T({n + 1})": _lead_over_best(first, n + 1, counted) for n in range(rounds)},
        wanted,
        {s: labels_at(curve, wanted) for s, curve in curves.items()},
        {s: _promoted(by_strategy[s], world) for s in strategies},
        sum(t.record.compute_s for t in trials),
    )


def labels_at(curve: Sequence[Point], goal: float) -> float | None:
    """Where the curve of means, straight between its points, first meets `goal`."""
    for before, after in itertools.pairwise(curve):
        low, high = before.miou.mean, after.miou.mean
        if low >= goal:
            return before.labels
        if high >= goal:
            return before.labels + (after.labels - before.labels) * (goal - low) / (high - low)
    return None


def _point(
    strategy: str, trials: Sequence[Trial], image_set: str, number: int, counted: Sequence[int] | None
) -> Point:
    mious = [_miou(t, t.record.versions[number], image_set, counted) for t in trials]
    starts = [_miou(t, t.record.target, image_set, counted) for t in trials]
    return Point(
        strategy,
        image_set,
        number,
        float(np.mean([t.record.labels(number) for t in trials])),
        float(np.mean([t.record.hours(number) for t in trials])),
        Spread.of(mious),
        Spread.of([after - before for after, before in zip(mious, starts, strict=True)]),
        gain_over_images(trials, number, image_set, counted),
    )


def _leads(
    trials: Mapping[str, Sequence[Trial]],
    strategies: Sequence[str],
    sets: Sequence[str],
    rounds: int,
    counted: Sequence[int] | None,
) -> list[Lead]:
    def mious(strategy: str, number: int, image_set: str) -> list[float]:
        return [_miou(t, t.record.versions[number], image_set, counted) for t in trials[strategy]]

    def lead(over: str, number: int, image_set: str) -> Lead:
        own, other = (mious(strategy, number, image_set) for strategy in (strategies[0], over))
        return Lead(
            strategies[0],
            over,
            number,
            image_set,
            Spread.of([a - b for a, b in zip(own, other, strict=True)]),
            lead_over_images(trials[strategies[0]], trials[over], number, image_set, counted),
        )

    # T(1) is the same under every strategy: it comes from f(0). Later ones are each strategy's own.
    numbers = range(1, rounds + 1)
    return [lead(over, n, name) for n in numbers for over in strategies[1:] for name in sets]


def _finding(
    strategy: str, trials: Sequence[Trial], first: Sequence[Trial], class_names: Sequence[str]
) -> Finding:
    def over(measure: Callable[[NDArray[np.float64]], float]) -> Spread:
        return Spread.of([measure(np.concatenate([_drawn_mious(m) for m in _found(t)])) for t in trials])

    wrong = sum((m.sum(axis=0) for t in trials for m in _found(t)), np.zeros((), np.int64))
    shared = [
        len(_chosen(own) & _chosen(other)) / max(1, len(_chosen(own)))
        for own, other in zip(trials, first, strict=True)
    ]
    return Finding(
        strategy,
        float(np.mean([len(_chosen(t)) for t in trials])),
        over(lambda mious: float(np.nanmean(mious))),
        over(lambda mious: float(np.mean(mious[~np.isnan(mious)] < FAILED))),
        Spread.of(shared),
        tuple(_pairs(wrong, class_names)),
    )


def _found(trial: Trial) -> list[NDArray[np.int64]]:
    """Confusion matrices of each round's S by the version that failed on it."""
    return [trial.matrices[r.started_from, f"S({r.number})"] for r in trial.record.rounds]


def _chosen(trial: Trial) -> set[str]:
    return {i for r in trial.record.rounds for i in r.failures}


def _drawn_mious(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array([mean_iou(m) for m in matrices])


def _pairs(wrong: NDArray[np.int64], class_names: Sequence[str]) -> list[Pair]:
    """The most frequent confusions of a (C, C + 1) confusion matrix."""
    off = wrong.astype(np.float64)
    off[np.arange(len(off)), np.arange(len(off))] = 0
    names = [*class_names, "void"]
    order = np.argsort(-off, axis=None, kind="stable")[:SHOWN_PAIRS]
    total = off.sum()
    return [
        Pair(names[row], names[column], float(off[row, column] / total))
        for row, column in (divmod(int(place), off.shape[1]) for place in order)
        if off[row, column] > 0
    ]


def _promoted(trials: Sequence[Trial], world: World) -> tuple[int, ...]:
    by_round = zip(*(decisions(world, trial) for trial in trials), strict=True)
    return tuple(sum(decision.promote for decision in found) for found in by_round)


def _table_1(trials: Sequence[Trial], sets: Sequence[str], counted: Sequence[int] | None) -> list[Row]:
    record = trials[0].record
    return [
        Row(model, {name: Spread.of([_miou(t, model, name, counted) for t in trials]) for name in sets})
        for model in (*record.competing, *record.versions)
    ]


def _lead_over_best(trials: Sequence[Trial], number: int, counted: Sequence[int] | None) -> Spread:
    name = f"T({number})"
    return Spread.of(
        [
            _miou(t, t.record.versions[number], name, counted)
            - max(_miou(t, g, name, counted) for g in t.record.competing)
            for t in trials
        ]
    )


def _miou(trial: Trial, model: str, image_set: str, counted: Sequence[int] | None) -> float:
    return dataset_miou(trial.matrices[model, image_set], counted)
