"""What all trials of a simulation share, made once before the first begins."""

from collections.abc import Sequence

from mad_backend.errors import SettingsError
from training.leaks import check_benchmark, read_contents
from training.people import Report
from training.simulation.predicting import predict
from training.simulation.strategies import parse_mix, target_scores
from training.simulation.world import World


def prepare(world: World, strategies: Sequence[str], report: Report) -> None:
    """Checks everything that can be, and leaves what f(0) and the competing models say of every image.

    Raises MadError: trials would fail of it one after the other.
    """
    mixes = [parse_mix(name) for name in strategies]
    rest = len(world.pool) - len(world.open_images) - world.settings.test_set.drawn
    if rest < world.settings.rating.n4:
        raise SettingsError(
            f"the pool has {len(world.pool)} images; {len(world.open_images)} are W and "
            f"{world.settings.test_set.drawn} T, which leaves fewer than rating.n4 {world.settings.rating.n4}"
        )
    target = world.current_target()
    predict(world, [target], report, rivals=True)
    # Everything is read now, so that trials, which run at the same time, find it known.
    read_contents(world, [*(i.image for i in (*world.t0, *world.s0)), *world.pool.values()])
    check_benchmark(world)
    for mix in mixes:
        target_scores(world, target, mix, report)
