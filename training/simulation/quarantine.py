"""Images under test and what looks like them: nothing of it is learnt."""

from collections.abc import Iterable, Sequence

from mad_backend.core.looks import Twin, find_twins, name_twins
from mad_backend.core.records import PoolImage
from mad_backend.errors import TrainingError
from training.leaks import read_contents
from training.simulation.world import World


def look_alikes(world: World, hidden: Iterable[str]) -> set[str]:
    """Ids of pool images that are, or look like, an image of T(0) or one of those `hidden`; without the hidden ones."""
    tested = set(hidden)
    others = [image for image_id, image in sorted(world.pool.items()) if image_id not in tested]
    return {twin.image_id for twin in _twins(world, others, tested)}


def left_out(world: World, hidden: Iterable[str], trained: Sequence[PoolImage]) -> set[str]:
    """Ids of images that are not learnt, since T(0) or one of those `hidden` has them by another name, or alike.

    Raises TrainingError naming images that are under test themselves.
    """
    found = _twins(world, trained, hidden)
    same = [twin for twin in found if twin.of == twin.image_id]
    if same:
        raise TrainingError(f"{len(same)} images of a test set would be learnt: {name_twins(same)}")
    return {twin.image_id for twin in found}


def _twins(world: World, images: Sequence[PoolImage], hidden: Iterable[str]) -> list[Twin]:
    tested = [*(i.image for i in world.t0), *(world.pool[i] for i in sorted(hidden))]
    near = world.settings.test_set.near_duplicates
    return find_twins(read_contents(world, images), read_contents(world, tested), near)
