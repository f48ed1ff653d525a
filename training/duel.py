"""A duel of two models on the pool (App. A, Table 2): its images are drawn, labelled and both models scored on them.

[D] The images are drawn as T is (method.md section 5) from the M of these two models alone: largest discrepancy by
class and role, within area windows, at most four of one main class, uniformly over roles. They are never trained on.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mad_backend.competition import StoredPair, find_selection, main_classes
from mad_backend.core.duel import Duel, DuelImage, Duellist, DuelResult, Side, image_mious, score_duel
from mad_backend.core.records import Candidate
from mad_backend.core.scores import PairScores
from mad_backend.core.selection import Window
from mad_backend.core.testset import draw_test_set
from mad_backend.engines.base import ModelRecipe
from mad_backend.errors import MadError, PoolError
from mad_backend.pool.sources import LabelledImage, list_labelled
from mad_backend.scan import ScanStatus
from mad_backend.settings import SelectionSettings
from training.duel_models import images_seen
from training.evaluate import matrices_of, without_surplus
from training.project import Project
from training.scanning import recipe_key, scan_with
from training.selecting import selection_windows

log = logging.getLogger(__name__)

BUDGET = 30
"""As many as T has in the paper."""


@dataclass(frozen=True)
class ScoredImage:
    """An image of a duel, where it lies, and the image mIoU of both models."""

    image_id: str
    path: str
    discrepancy: float
    first_miou: float
    second_miou: float


@dataclass(frozen=True)
class DuelReport:
    """What a duel came to; `labels` says whose label maps they are.

    Of `drawn` images `unlabelled` have no label map (yet), and `dropped` were left out, since the label maps showed too
    many of one main class. `images` are in the order drawn.
    """

    first: str
    second: str
    labels: str
    drawn: int
    unlabelled: tuple[str, ...]
    dropped: tuple[str, ...]
    result: DuelResult
    images: tuple[ScoredImage, ...]


def find_duel(
    scores: Iterable[PairScores],
    windows: Mapping[int, Window],
    settings: SelectionSettings,
    excluded: Collection[str],
    main_class: Callable[[Sequence[Candidate]], Mapping[str, int]],
    budget: int,
    seed: int,
    per_class: int | None = None,
) -> list[DuelImage]:
    """At most `budget` images of the M of two models, in the order drawn; `excluded` were seen by one of them.

    `scores` are of the first as target, the second as its competitor, and may be read more than once.
    `main_class` tells the main foreground object of each candidate, of which at most `per_class` are drawn (None: no
    cap). Images on which both agree, which a cell with few others chooses too, tell nothing and are left out.
    """
    selection = find_selection({Side.SECOND: scores}, windows, settings, excluded)
    found = [candidate for candidate in selection.candidates if candidate.discrepancy > 0]
    drawn = draw_test_set(found, main_class(found), budget, seed, per_class=per_class or budget)
    by_id = {candidate.image_id: candidate.discrepancy for candidate in found}
    return [DuelImage(image_id, by_id[image_id]) for image_id in drawn]


def open_duel(
    project: Project,
    models: Sequence[ModelRecipe],
    budget: int | None,
    progress: Callable[[ScanStatus], None] = lambda _status: None,
) -> Duel:
    """The duel of two models: the one on record, else a new one, for which both first predict the pool.

    Raises MadError where another budget is wanted than was drawn, or nothing can be drawn; else as `scan_pool`.
    """
    keys = [recipe_key(model) for model in models]
    store = project.store.duels
    known = store.of(*keys)
    if known is None:
        store.record(_draw(project, models, keys, budget or BUDGET, progress))
        known = store.of(*keys)
    assert known is not None
    if budget not in (None, known.budget):
        raise MadError(
            f"the duel {known.title} was drawn with a budget of {known.budget}, which stays: a budget that is chosen "
            "once results are known would favour one of them; leave --budget out"
        )
    return known


def oracle_labels(project: Project, duel: Duel) -> list[LabelledImage]:
    """The duel's images with the label maps that the pool's sources have; raises PoolError where they have none."""
    names = {image.image_id.partition("/")[0] for image in duel.images}
    sources = [source for source in project.settings.pool if source.name in names]
    found = {i.image.image_id: i for i in list_labelled(sources, project.settings.mirrors, project.labels)}
    return [found[image.image_id] for image in duel.images if image.image_id in found]


def judge_duel(project: Project, duel: Duel, labelled: Sequence[LabelledImage], labels: str) -> DuelReport:
    """Both models on those of the duel's images that are `labelled`, in the order drawn."""
    items = without_surplus(project, labelled)
    kept = {item.image.image_id for item in items}
    given = [item.image.image_id for item in labelled]
    if not items:
        raise MadError(f"the duel {duel.title} has no label map yet; nothing can be told")
    first, second = (matrices_of(project, model.key, items) for model in (duel.first, duel.second))
    counted = project.counted_classes
    d = {image.image_id: image.discrepancy for image in duel.images}
    mious = zip(image_mious(first, counted).tolist(), image_mious(second, counted).tolist(), strict=True)
    return DuelReport(
        duel.first.name,
        duel.second.name,
        labels,
        len(duel.images),
        tuple(i for i in d if i not in given),
        tuple(i for i in given if i not in kept),
        score_duel(first, second, counted),
        tuple(
            ScoredImage(item.image.image_id, item.image.path, d[item.image.image_id], *pair)
            for item, pair in zip(items, mious, strict=True)
        ),
    )


def duel_folder(project: Project, duel: Duel) -> Path:
    """Where label maps and results of a duel lie."""
    name = re.sub(r"[^A-Za-z0-9_.@+-]+", "-", f"{duel.first.name}-vs-{duel.second.name}")[:200]
    digest = hashlib.sha256(f"{duel.first.key}\n{duel.second.key}".encode()).hexdigest()
    folder = project.settings.workspace / "duels" / f"{name}-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _draw(
    project: Project,
    models: Sequence[ModelRecipe],
    keys: Sequence[str],
    budget: int,
    progress: Callable[[ScanStatus], None],
) -> Duel:
    scan_with(project, models[0], models[1:], progress)
    seed = project.settings.seed
    images = find_duel(
        StoredPair(project.scores, keys[0], keys[1]),
        selection_windows(project),
        project.settings.selection,
        images_seen(project, models),
        lambda candidates: main_classes(candidates, keys, project.predictions, project.labels),
        budget,
        seed,
        project.settings.test_set.per_class,
    )
    if not images:
        raise PoolError(
            f"no image of the pool can be in the duel of {models[0].name} and {models[1].name}: they agree on all that "
            "neither has seen and that hold a class within its area window; enlarge the pool"
        )
    first, second = (Duellist(model.name, key) for model, key in zip(models, keys, strict=True))
    duel = Duel(first, second, budget, seed, tuple(images), datetime.now(UTC))
    log.info("duel %s: drew %d images for a budget of %d", duel.title, len(images), budget)
    return duel
