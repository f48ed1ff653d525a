"""The engine of one process."""

from dataclasses import replace

from mad_backend.engines.factory import open_engine
from mad_backend.settings import ScanSettings
from tests.engines.conftest import Pool
from tests.engines.stand_ins import CLOSED, read


def test_content_of_which_there_is_a_map_is_not_predicted_again(pool: Pool) -> None:
    (task,) = pool.tasks(2, images=pool.images[:3])
    with open_engine(ScanSettings(), (pool.recipe("folder"), pool.recipe("torchscript")), read) as engine:
        (first,) = engine.run([task])
        digest = first.seen[1].digest
        stored = [(None, None), (digest, None), (digest, digest)]
        images = tuple(replace(w, stored=s) for w, s in zip(task.images, stored, strict=True))
        (again,) = engine.run([replace(task, images=images)])
    assert [s.image.image_id for s in again.seen] == ["d/000", "d/001", "d/002"]
    # The digest that is stored of the third image is another image's.
    assert [[m.image_id for m in maps] for maps in again.maps] == [
        ["d/000", "d/002"],
        ["d/000", "d/001", "d/002"],
    ]


def test_one_device_takes_the_place_of_the_one_that_models_name(pool: Pool) -> None:
    recipe = pool.recipe("torchscript")
    elsewhere = replace(recipe, settings=recipe.settings.model_copy(update={"device": "cuda:7"}))
    with open_engine(ScanSettings(devices=("cpu",)), [elsewhere], read) as engine:
        (result,) = engine.run(pool.tasks(1, chunk=24))
    assert len(result.maps[0]) == 23


def test_models_are_closed_with_their_engine(pool: Pool) -> None:
    with open_engine(ScanSettings(), [pool.recipe("Traced")], read):
        assert not (pool.root / "maps" / CLOSED).exists()
    assert (pool.root / "maps" / CLOSED).exists()
