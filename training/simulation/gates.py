"""What the gate would have said of each version of a trial; trials go on either way, as the paper does."""

from training.evaluate import T0
from training.failure_suite import Tried, drawn_miou, failure_suite
from training.promotion import Decision, PairedSet, decide
from training.simulation.records import Trial
from training.simulation.world import World


def decisions(world: World, trial: Trial) -> list[Decision]:
    """Of f(1), f(2), ..., each against the version it started from, as if that had been served."""
    record, counted = trial.record, world.counted_classes
    found = []
    for number in range(1, len(record.rounds) + 1):
        before, after = record.versions[number - 1], record.versions[number]

        def paired(name: str, before: str = before, after: str = after) -> PairedSet:
            return PairedSet(name, trial.matrices[before, name], trial.matrices[after, name])

        tried = [
            _tried(trial, f"{kind}({earlier})", earlier, number, counted)
            for kind in ("S", "T")
            for earlier in range(1, number + 1)
            if (after, f"{kind}({earlier})") in trial.matrices
        ]
        found.append(
            decide(
                before,
                after,
                paired(T0),
                [paired(f"T({n})") for n in range(1, number + 1) if (after, f"T({n})") in trial.matrices],
                failure_suite(tried, world.settings.promotion.suite_tolerance),
                world.settings.promotion,
                world.labels,
                counted,
            )
        )
    return found


def _tried(
    trial: Trial, image_set: str, drawn_in: int, number: int, counted: tuple[int, ...] | None
) -> Tried:
    versions = trial.record.versions
    mious = {v: drawn_miou(trial.matrices[v, image_set], counted) for v in versions}
    return Tried(
        image_set,
        trial.record.sets[image_set],
        mious[versions[drawn_in - 1]],
        {v: mious[v] for v in versions[drawn_in:number]},
        mious[versions[number - 1]],
        mious[versions[number]],
    )
