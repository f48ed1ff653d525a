"""The engine that settings ask for."""

from collections.abc import Sequence

from mad_backend.engines.base import Engine, ModelRecipe, ReadBytes
from mad_backend.engines.devices import DeviceEngine
from mad_backend.engines.local import LocalEngine
from mad_backend.engines.ray_engine import RayEngine
from mad_backend.settings import ScanSettings


def open_engine(settings: ScanSettings, recipes: Sequence[ModelRecipe], read: ReadBytes) -> Engine:
    """An engine with one model a recipe, in that order; all recipes are of one grid.

    Raises what loading a model raises (LocalEngine; the others when their first result is asked for, or sooner),
    and what `RayEngine` raises.
    """
    if settings.engine == "ray":
        return RayEngine(
            recipes,
            read,
            address=settings.ray.address,
            actors=settings.ray.actors,
            cpus_per_actor=settings.ray.cpus_per_actor,
            gpus_per_actor=settings.ray.gpus_per_actor,
            decode_threads=settings.decode_threads,
            start_timeout_s=settings.ray.start_timeout_s,
        )
    if len(settings.devices) > 1:
        return DeviceEngine(recipes, settings.devices, read, settings.decode_threads)
    device = settings.devices[0] if settings.devices else None
    models = [recipe.load(device) for recipe in recipes]
    return LocalEngine(models, recipes[0].grid, read, settings.decode_threads)
