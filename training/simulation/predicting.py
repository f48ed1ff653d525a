"""Label maps of models on everything that a simulation looks at, kept for all trials."""

from collections.abc import Sequence

from mad_backend.core.records import ModelVersion, PoolImage
from mad_backend.engines.base import ModelRecipe
from mad_backend.engines.factory import open_engine
from mad_backend.models.registry import stored_key
from mad_backend.scan import predict_images
from mad_backend.targets import target_settings
from training.people import Report
from training.scanning import StoredModel
from training.simulation.world import World


def predict(world: World, versions: Sequence[ModelVersion], report: Report, *, rivals: bool = False) -> None:
    """Label maps of versions of the target, and of competing models where asked, on D and T(0)'s reported part."""
    competing = world.settings.models.competing if rivals else {}
    recipes = [ModelRecipe(name, m, world.labels, world.grid) for name, m in sorted(competing.items())]
    recipes += [
        ModelRecipe(v.version, target_settings(v, world.settings), world.labels, world.grid) for v in versions
    ]
    images = world.reader.with_etags([*world.pool.values(), *(i.image for i in world.t0_report)])
    for recipe in recipes:
        model = StoredModel(recipe.name, stored_key(recipe.name, recipe.settings, world.labels, world.grid))
        if not _is_predicted(world, model.key, images):
            predict_images(
                images,
                [model],
                world.predictions,
                world.open_ledger(),
                lambda recipe=recipe: open_engine(world.settings.scan, [recipe], world.reader.read),  # type: ignore[misc]
                world.settings.scan.chunk,
                lambda status, recipe=recipe: report(f"{recipe.name} predicts", status.done, status.total),  # type: ignore[misc]
            )


def _is_predicted(world: World, key: str, images: Sequence[PoolImage]) -> bool:
    """Whether nothing is to be written: packs have one writer, and several trials look at f(0)'s."""
    with world.predictions.open(key) as pack:
        return all(image.image_id in pack for image in images)
