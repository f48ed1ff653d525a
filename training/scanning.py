"""The scan of a project's pool, for a round and by hand: `mad scan`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from mad_backend.core.records import ModelVersion
from mad_backend.engines.base import ModelRecipe
from mad_backend.engines.factory import open_engine
from mad_backend.models.registry import stored_key
from mad_backend.scan import ScanReport, ScanStatus, ScanStores, scan
from mad_backend.targets import target_settings
from training.display import Display
from training.project import Project


@dataclass(frozen=True)
class StoredModel:
    """A model's name and the key of its label maps, known without loading it."""

    name: str
    key: str


def scan_pool(
    project: Project, target: ModelVersion, progress: Callable[[ScanStatus], None] = lambda _status: None
) -> ScanReport:
    """Brings label maps and scores of every model on the pool up to date; only what is missing is done.

    Loads no model when nothing is missing. Raises PoolError, ModelError, MissingRuntimeError, ScanError or StoreError.
    """
    settings = project.settings
    competing = [
        ModelRecipe(name, model, project.labels, project.grid)
        for name, model in sorted(settings.models.competing.items())
    ]
    own = ModelRecipe(target.version, target_settings(target, settings), project.labels, project.grid)
    return scan_with(project, own, competing, progress)


def scan_with(
    project: Project,
    target: ModelRecipe,
    competing: Sequence[ModelRecipe],
    progress: Callable[[ScanStatus], None] = lambda _status: None,
) -> ScanReport:
    """As `scan_pool`, of a target and competing models that need not be those of the settings."""
    settings, recipes = project.settings, [*competing, target]
    stored = [StoredModel(r.name, recipe_key(r)) for r in recipes]
    return scan(
        project.reader.with_etags(list(project.pool.values())),
        stored[-1],
        stored[:-1],
        ScanStores(project.predictions, project.scores, project.open_ledger()),
        lambda: open_engine(settings.scan, recipes, project.reader.read),
        len(project.labels),
        settings.scan.chunk,
        progress,
    )


def recipe_key(recipe: ModelRecipe) -> str:
    """The key of a model's stored label maps, without loading it."""
    return stored_key(recipe.name, recipe.settings, recipe.labels, recipe.grid)


def describe(status: ScanStatus) -> str:
    """Speed, share of time in the models and time left, in one line."""
    left = status.seconds_left
    if left is None:
        return "loading models"
    return (
        f"{status.images_per_s:.1f} images/s, {min(status.model_share, 1):.0%} of the time in the models, "
        f"{_duration(left)} left"
    )


class ScanDisplay(Display):
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("scan"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
        super().__init__(console, columns, "loading models")

    def show(self, status: ScanStatus) -> None:
        what = describe(status)
        self.tell(what, status.done, status.total, f"scan: {status.done} of {status.total} images, {what}")


def tell(report: ScanReport, console: Console, seconds: float) -> None:
    """What was added, and by name what failed."""
    added = sum(report.added.values())
    console.print(
        f"{report.images} images: {added} new label maps of {len(report.added)} models, {report.scored} new scores, "
        f"in {_duration(seconds)}"
    )
    if report.unreadable:
        console.print(f"{len(report.unreadable)} images cannot be read and are left out:")
        for image_id, reason in list(report.unreadable.items())[:10]:
            console.print(f"  {image_id}: {reason}", markup=False)
    for name, image_ids in report.unanswered.items():
        console.print(f"{name} has no answer for {len(image_ids)} images, e.g. {image_ids[0]}", markup=False)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
