"""Every model on T(0), T(1..i) and every version on S(1..i): per-image confusion matrices (method.md section 7)."""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import confusion_matrix
from mad_backend.core.records import PoolImage
from mad_backend.core.testset import main_foreground, surplus
from mad_backend.engines.base import ModelRecipe
from mad_backend.engines.factory import open_engine
from mad_backend.errors import CorruptFileError, ModelError
from mad_backend.models.registry import stored_key
from mad_backend.pool.ids import image_keys
from mad_backend.pool.ledger import Ledger
from mad_backend.pool.sources import LabelledImage
from mad_backend.pool.truths import Truth
from mad_backend.scan import predict_images
from mad_backend.store.versions import EvaluationRow
from mad_backend.targets import target_settings
from training.project import Project

log = logging.getLogger(__name__)

T0 = "T(0)"


@dataclass(frozen=True)
class ImageSet:
    """A labelled image set by its name, "T(0)", "T(1)", "S(1)", ..."""

    name: str
    items: tuple[LabelledImage, ...]

    def digest(self, ledger: Ledger) -> str:
        """Stands for these images, what is in them as far as it was ever read, and their label maps."""
        contents, _ = ledger.content(image_keys(i.image.image_id for i in self.items))
        what = [
            (item.image.image_id, content, item.truth.digest())
            for item, content in zip(self.items, contents.tolist(), strict=True)
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


@dataclass(frozen=True)
class MeasuredModel:
    """A model by the key of its label maps; `recipe` None: its files are gone, only the maps it gave are left."""

    name: str
    key: str
    recipe: ModelRecipe | None


def image_sets(project: Project, last_round: int) -> list[ImageSet]:
    """T(0)'s reported part and T(1..last_round) with the masks that count, surplus images dropped."""
    sets = [ImageSet(T0, tuple(project.t0_report))] if project.t0_report else []
    for number in range(1, last_round + 1):
        items = _test_items(project, number)
        if items:
            sets.append(ImageSet(f"T({number})", tuple(items)))
    return sets


def failure_sets(project: Project, last_round: int) -> list[ImageSet]:
    """S(1..last_round) with the masks that count."""
    sets = []
    for number in range(1, last_round + 1):
        failures = [f.image_id for f in project.store.choices.failures(number)]
        items = _labelled(project, number, failures)
        if items:
            sets.append(ImageSet(f"S({number})", tuple(items)))
    return sets


def competing_models(project: Project) -> list[MeasuredModel]:
    """g_1..g_m, as far as it is known which label maps are theirs."""
    competing = sorted(project.settings.models.competing.items())
    return _known(project, [ModelRecipe(n, m, project.labels, project.grid) for n, m in competing])


def target_versions(project: Project) -> list[MeasuredModel]:
    """f(0), f(1), ..., as far as it is known which label maps are theirs."""
    return _known(
        project,
        [
            ModelRecipe(v.version, target_settings(v, project.settings), project.labels, project.grid)
            for v in project.store.versions.all()
        ],
    )


def evaluate_all(
    project: Project,
    models: Sequence[MeasuredModel],
    sets: Sequence[ImageSet],
    progress: Callable[[int, int], None],
) -> None:
    """Records the confusion matrices of every model on every set, as far as they are not there.

    Maps are compared with the human label map at the image's own size. Loads no model that has all its label maps.
    """
    images = project.reader.with_etags(
        list({i.image.image_id: i.image for s in sets for i in s.items}.values())
    )
    ledger = project.open_ledger()
    lacking = [m for m in models if m.recipe and not _has_maps(project, ledger, m.key, images)]
    recipes = [m.recipe for m in lacking if m.recipe]
    if lacking:
        predict_images(
            images,
            lacking,
            project.predictions,
            ledger,
            lambda: open_engine(project.settings.scan, recipes, project.reader.read),
            project.settings.scan.chunk,
            lambda status: progress(status.done, 2 * status.total),
        )
    known = {(r.model_key, r.image_set, r.images_digest) for r in project.store.versions.evaluations()}
    for done, image_set in enumerate(sets, start=1):
        digest = image_set.digest(ledger)
        for model in models:
            if (model.key, image_set.name, digest) not in known and _can_be_measured(
                project, model, image_set
            ):
                _record(project, model, image_set, digest)
        progress(len(sets) + done, 2 * len(sets))


def current_matrices(
    project: Project, models: Sequence[MeasuredModel], sets: Sequence[ImageSet]
) -> dict[tuple[str, str], NDArray[np.int64]]:
    """(model, image set) -> matrices (n, C, C + 1) that were measured with these models, images and label maps.

    What was measured of other weights or other label maps, or not at all, is absent.
    """
    ledger = project.open_ledger()
    digests = {s.name: s.digest(ledger) for s in sets}
    names = {m.key: m.name for m in models}
    return {
        (names[row.model_key], row.image_set): read_matrices(row)
        for row in project.store.versions.evaluations()
        if row.model_key in names and digests.get(row.image_set) == row.images_digest
    }


def matrices_of(project: Project, key: str, items: Sequence[LabelledImage]) -> NDArray[np.int64]:
    """(n, C, C + 1) int64, one confusion matrix an image, of the label maps stored under `key`."""
    with project.predictions.open(key) as pack:
        matrices = []
        for item in items:
            truth = item.truth.read()
            label_map = pack.read(item.image.image_id) if item.image.image_id in pack else None
            prediction = _restored(project.grid, label_map, truth)
            matrices.append(confusion_matrix(truth, prediction, len(project.labels)))
    return np.stack(matrices)


def without_surplus(project: Project, items: Sequence[LabelledImage]) -> list[LabelledImage]:
    """A test set, in the order drawn, without images of one main object beyond `test_set.per_class`.

    Only the human label map tells which that is (method.md section 5).
    """
    cap = project.settings.test_set.per_class
    if cap is None:
        return list(items)
    main = {item.image.image_id: main_foreground(item.truth.read(), project.labels) for item in items}
    dropped = set(surplus(list(main), main, cap))
    return [item for item in items if item.image.image_id not in dropped]


def read_matrices(row: EvaluationRow) -> NDArray[np.int64]:
    """(n, C, C + 1) int64 per-image confusion matrices; raises CorruptFileError if the file changed."""
    try:
        raw = Path(row.path).read_bytes()
    except OSError as error:
        raise CorruptFileError(
            f"{row.path}, what {row.model} was measured to be on {row.image_set}, cannot be read: {error.strerror}"
        ) from error
    if hashlib.sha256(raw).hexdigest() != row.sha256:
        raise CorruptFileError(
            f"{row.path} changed since {row.model} was measured on {row.image_set}; evaluate again"
        )
    matrices: NDArray[np.int64] = np.load(io.BytesIO(raw), allow_pickle=False)["matrices"]
    return matrices


def _known(project: Project, recipes: Sequence[ModelRecipe]) -> list[MeasuredModel]:
    """A model without files by the key it was last measured under; without that too, it is left out with a warning."""
    last = {row.model: row.model_key for row in project.store.versions.evaluations()}
    found = []
    for recipe in recipes:
        try:
            key = stored_key(recipe.name, recipe.settings, recipe.labels, recipe.grid)
        except ModelError as error:
            log.warning("%s is not measured: %s", recipe.name, error)
            if recipe.name in last:
                found.append(MeasuredModel(recipe.name, last[recipe.name], None))
        else:
            found.append(MeasuredModel(recipe.name, key, recipe))
    return found


def _can_be_measured(project: Project, model: MeasuredModel, image_set: ImageSet) -> bool:
    """Not where a map is missing because nobody can be asked for it any more."""
    if model.recipe:
        return True
    with project.predictions.open(model.key) as pack:
        return all(item.image.image_id in pack for item in image_set.items)


def _has_maps(project: Project, ledger: Ledger, key: str, images: Sequence[PoolImage]) -> bool:
    """Whether a label map of the present content of every image is stored under `key`."""
    if not ledger.unchanged(images).all():
        return False
    keys = image_keys(i.image_id for i in images)
    contents, _ = ledger.content(keys)
    with project.predictions.open(key) as pack:
        found, of = pack.digests(keys)
    return bool((found & (of == contents)).all())


def _restored(grid: Grid, label_map: LabelMap | None, truth: LabelMap) -> LabelMap:
    if label_map is None:
        # No answer is a miss on every pixel, not an image left out.
        return np.full(truth.shape, 255, np.uint8)
    return grid.restore(label_map, *truth.shape)


def _test_items(project: Project, number: int) -> list[LabelledImage]:
    return without_surplus(project, _labelled(project, number, project.store.choices.test_set(number)))


def _labelled(project: Project, number: int, image_ids: Sequence[str]) -> list[LabelledImage]:
    """Those of the images of a round that are in the pool and have a mask that counts, in their order."""
    masks = project.store.final_masks(number)
    known = [i for i in image_ids if i in masks and i in project.pool]
    return [LabelledImage(project.pool[i], Truth(Path(masks[i].path))) for i in known]


def _record(project: Project, model: MeasuredModel, image_set: ImageSet, digest: str) -> None:
    matrices = matrices_of(project, model.key, image_set.items)
    folder = project.settings.workspace / "evaluations" / model.key
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{image_set.name.strip(')').replace('(', '')}-{digest[:12]}.npz"
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, matrices=matrices, images=np.array([i.image.image_id for i in image_set.items])
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    row = EvaluationRow(
        model.name, model.key, image_set.name, digest, len(image_set.items), str(path), sha256
    )
    project.store.versions.record_evaluation(row)
