"""What goes wrong: the labelled images of every S and T, grouped by what the target that found them got wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mad_backend.core.confusions import worst_confusion
from mad_backend.core.failure_groups import FailedImage, FailureGroup, by_appearance, by_confusion
from mad_backend.core.metrics import confusion_matrix, mean_iou
from mad_backend.core.rounds import Round
from mad_backend.core.selection import Window
from mad_backend.errors import MissingRuntimeError, ModelError, StoreError
from mad_backend.pool.sources import LabelledImage
from training.acquisition import acquisition_scores
from training.evaluate import ImageSet, current_matrices, failure_sets, image_sets, target_versions
from training.project import Project
from training.selecting import selection_windows

Progress = Callable[[str, int, int], None]
"""Gets (what is done, done, total)."""


@dataclass(frozen=True)
class FailureReport:
    """Groups of the images in the S and T that `rated` names: image set -> images of M of its round that were rated.

    `versions` of the target are those measured on any of these sets, oldest first; `served` is the one that is served,
    whose features `appearances` are of. `no_appearances` says why there are none, "" where there are. `left_out`:
    image id -> why it is in no group. `keys`: version -> key of its stored label maps.
    """

    rated: Mapping[str, int]
    versions: tuple[str, ...]
    served: str
    images: tuple[FailedImage, ...]
    confusions: tuple[FailureGroup, ...]
    appearances: tuple[FailureGroup, ...]
    no_appearances: str
    left_out: Mapping[str, str]
    labelled: Mapping[str, LabelledImage]
    keys: Mapping[str, str]


def build_failures(project: Project, number: int | None, report: Progress) -> FailureReport:
    """Of all rounds, or of round `number` alone, from label maps and evaluations that are there.

    Only features that are missing are computed. Raises StoreError where no image of S or T has a label map of people.
    """
    sets = _labelled_sets(project, number)
    versions = target_versions(project)
    keys = {version.name: version.key for version in versions}
    matrices = current_matrices(project, versions, [image_set for _, image_set in sets])
    windows = selection_windows(project)
    images: list[FailedImage] = []
    left_out: dict[str, str] = {}
    for done, (found, image_set) in enumerate(sets):
        report("comparing label maps", done, len(sets))
        target = project.target_of(found).version
        mious = {
            version: [mean_iou(matrix, project.counted_classes) for matrix in measured]
            for (version, name), measured in matrices.items()
            if name == image_set.name
        }
        failed, others = _judged(project, image_set, target, keys.get(target), mious, windows)
        images += failed
        left_out |= others
    appearances, reason = _appearances(project, images, report)
    return FailureReport(
        {s.name: len({r.image_id for r in project.store.remote.ratings(f.number)}) for f, s in sets},
        tuple(v.name for v in versions if any(v.name == measured for measured, _ in matrices)),
        project.current_target().version,
        tuple(images),
        by_confusion(images),
        appearances,
        reason,
        left_out,
        {item.image.image_id: item for _, image_set in sets for item in image_set.items},
        keys,
    )


def _labelled_sets(project: Project, number: int | None) -> list[tuple[Round, ImageSet]]:
    """S(i) and T(i) with their round, round by round, as far as people have drawn label maps."""
    rounds = project.store.rounds.all() if number is None else [project.store.rounds.get(number)]
    last = max((found.number for found in rounds), default=0)
    named = {s.name: s for s in (*failure_sets(project, last), *image_sets(project, last))}
    wanted = [(found, f"{part}({found.number})") for found in rounds for part in "ST"]
    sets = [(found, named[name]) for found, name in wanted if name in named]
    if not sets:
        where = "any round" if number is None else f"round {number}"
        raise StoreError(
            f"no image of S or T of {where} has a label map of people yet; the labelling step of a round fetches them"
        )
    return sets


def _judged(
    project: Project,
    image_set: ImageSet,
    target: str,
    key: str | None,
    mious: Mapping[str, Sequence[float]],
    windows: Mapping[int, Window],
) -> tuple[list[FailedImage], dict[str, str]]:
    """The images on which the label maps of `target`, stored under `key`, are wrong; the others by id, with why.

    `mious`: version -> image mIoU of every image of the set.
    """
    if key is None:
        return [], {i.image.image_id: f"the label maps of {target} are lost" for i in image_set.items}
    failed, others = [], {}
    with project.predictions.open(key) as pack:
        for place, item in enumerate(image_set.items):
            image_id = item.image.image_id
            if image_id not in pack:
                others[image_id] = f"there is no label map of {target}"
                continue
            truth = item.truth.read()
            prediction = project.grid.restore(pack.read(image_id), *truth.shape)
            confusion = worst_confusion(truth, prediction, project.labels, windows)
            if confusion is None:
                others[image_id] = f"{target} has nothing wrong on it"
                continue
            matrix = confusion_matrix(truth, prediction, len(project.labels))
            found = mean_iou(matrix, project.counted_classes)
            now = {version: values[place] for version, values in mious.items()}
            failed.append(FailedImage(image_id, image_set.name, target, confusion, found, now))
    return failed, others


def _appearances(
    project: Project, images: Sequence[FailedImage], report: Progress
) -> tuple[tuple[FailureGroup, ...], str]:
    """Groups by appearance, or why there are none."""
    if not images:
        return (), "there is nothing wrong"
    try:
        scores = acquisition_scores(
            project, project.current_target(), [project.pool[i.image_id] for i in images], report
        )
    except (ModelError, MissingRuntimeError) as error:
        return (), str(error)
    if not scores.image_ids:
        return (), "none of the images can be read"
    by_id = {image.image_id: image for image in images}
    return by_appearance([by_id[i] for i in scores.image_ids], scores.embeddings), ""
