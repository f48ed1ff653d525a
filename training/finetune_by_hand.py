"""Fine-tuning on a folder of label maps, without rounds and without Label Studio: for a first try, `mad finetune`."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mad_backend.core.looks import find_twins, name_twins
from mad_backend.core.metrics import dataset_miou
from mad_backend.core.records import ModelVersion
from mad_backend.core.statistics import Estimate, estimate_difference
from mad_backend.errors import CorruptFileError, SettingsError, TrainingError
from mad_backend.models.registry import load_model
from mad_backend.settings import TrainingSettings
from mad_backend.settings.first_try import FirstTrySettings
from mad_backend.settings_file import load_label_set, load_settings
from mad_backend.store.store import Store
from training.finetune import labelled_samples, make_job, unlabelled_images
from training.finetuning.dev import confusion_matrices
from training.finetuning.job import Job
from training.finetuning.progress import Report
from training.finetuning.record import read_meta
from training.finetuning.samples import Sample
from training.finetuning.version import make_version
from training.labelled_folder import check_maps, drawn_maps, images_in, matched
from training.leaks import (
    check_benchmark,
    file_contents,
    images_to_leave_out,
    images_under_test,
    read_contents,
)
from training.project import Project

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Dataset mIoU of the new weights and of those they started from on the same images."""

    images: int
    before: float
    after: float
    change: Estimate


@dataclass(frozen=True)
class FirstTry:
    """What came of it: `path` is what `models.target.path` must be to use the weights, which lie in `folder`.

    `has_versions`: rounds of this project stand on its target, which must stay what it is.
    """

    job: Job
    folder: Path
    path: Path
    benchmark: Comparison
    failures: Comparison
    has_versions: bool


def open_project(config: Path) -> Project:
    """A project of which only target, label set, S(0) and T(0) must be known; raises SettingsError or StoreError."""
    settings = load_settings(config, FirstTrySettings)
    for key, sources, what in (
        (
            "s0",
            settings.s0,
            "images and label maps that the target was trained on, so that it forgets nothing",
        ),
        (
            "t0",
            settings.t0,
            "images and label maps of its benchmark: half chooses epoch and rate, half is reported",
        ),
    ):
        if not sources:
            raise SettingsError(
                f"{config}: {key} is missing: {what}; write {key}: [{{name: {key}, images: ..., masks: ...}}]"
            )
    settings.workspace.mkdir(parents=True, exist_ok=True)
    return Project(config, settings, load_label_set(settings.label_set), Store(settings.database_url))


def prepare(project: Project, masks: Path, images: Path | None, target: str | None) -> Job:
    """What is to be done, with everything checked that can be before anything is learnt.

    Raises PoolError, ImageError, TrainingError, ModelError or StoreError.
    """
    settings, masks = project.settings.training, masks.absolute()
    started_from = _version(project, target)
    samples = folder_samples(project, masks, images and images.absolute())
    latest = project.store.rounds.latest()
    number = latest.number if latest else 0
    samples = without_leaks(project, number, samples)
    pool = unlabelled_images(project, number) if _wants_pool(project) else []
    check_benchmark(project)
    left_out = images_to_leave_out(project, number, [*(item.image for item in project.s0), *pool])
    if not project.t0_report:
        raise TrainingError("T(0) has one image; two are needed, one to choose by and one to report")
    version = f"{started_from.version}+{re.sub('[^A-Za-z0-9_.-]+', '-', masks.name)}"
    job = make_job(
        project,
        version,
        started_from,
        samples,
        labelled_samples(project, [item for item in project.s0 if item.image.image_id not in left_out]),
        tuple(project.local_file(image) for image in pool if image.image_id not in left_out),
        _without_pool(settings) if not project.settings.pool else settings,
        project.settings.seed,
        project.settings.workspace / "training" / version,
    )
    job.start()
    return job


def folder_samples(project: Project, masks: Path, images: Path | None) -> list[Sample]:
    """S: the label maps below `masks` with images of folder `images`, or of the pool where that is None."""
    drawn = drawn_maps(masks)
    if images is None and not project.settings.pool:
        raise SettingsError(
            f"the images of {masks} are not known: name their folder by --images, or a pool in {project.config}"
        )
    known = project.pool.values() if images is None else images_in(images)
    pairs = matched(drawn, known, "the pool" if images is None else str(images))
    samples = [Sample(image.image_id, project.local_file(image), d.truth) for image, d in pairs]
    for image_id, ids in check_maps(samples, project.labels).items():
        log.warning("%s: ids %s are not in the label set and count as void", image_id, ids)
    return samples


def without_leaks(project: Project, number: int, samples: Sequence[Sample]) -> list[Sample]:
    """S without images that look like one of T(0) or T(1..number), each logged.

    Raises TrainingError where one is of a test set, by its id or by its content, or where none is left.
    """
    tested = read_contents(project, images_under_test(project, number))
    drawn = file_contents({s.image_id: s.image for s in samples}, project.grid)
    twins = find_twins(drawn, tested, project.settings.test_set.near_duplicates)
    same = [twin for twin in twins if twin.bits is None]
    if same:
        raise TrainingError(
            f"{len(same)} images of S are test images, which are never learnt, e.g. {same[0].image_id} is {same[0].of} "
            "of T(0) or of a round's T; take their label maps out of the folder"
        )
    left_out = {twin.image_id for twin in twins}
    if left_out:
        log.warning("left out of training, since a test set has them: %s", name_twins(twins))
    if len(left_out) == len(samples):
        raise TrainingError(
            "every image of S looks like a test image; where they are different ones, lower "
            "test_set.near_duplicates"
        )
    return [sample for sample in samples if sample.image_id not in left_out]


def finetune_by_hand(project: Project, job: Job, out: Path | None, report: Report) -> FirstTry:
    """Trains, exports to `out` (None: the workspace's checkpoints), and measures; goes on where it was stopped.

    Records no version. Raises SettingsError where `out` holds something else, TrainingError and what models raise.
    """
    folder = (out or project.settings.workspace / "checkpoints" / job.version).absolute()
    _check_out(folder, job.version)
    path = make_version(job, folder, report)
    benchmark = labelled_samples(project, project.t0_report)
    report("measuring T(0) and S before and after", 0, 1)
    return FirstTry(
        job,
        folder,
        path,
        _compare(job, path, benchmark),
        _compare(job, path, job.failures),
        bool(project.store.versions.all()),
    )


def _compare(job: Job, path: Path, samples: Sequence[Sample]) -> Comparison:
    """Reads the exported weights as a service would."""
    classes = len(job.labels)
    after, before = (
        confusion_matrices(load_model(name, settings, job.labels, job.grid), samples, job.grid, classes)
        for name, settings in (
            (job.version, job.target.model_copy(update={"path": path})),
            (job.started_from, job.target),
        )
    )
    return Comparison(
        len(samples),
        dataset_miou(before, job.counted),
        dataset_miou(after, job.counted),
        estimate_difference(after, before, job.counted),
    )


def _version(project: Project, name: str | None) -> ModelVersion:
    first = f"{project.settings.models.name}@0"
    known = {v.version for v in project.store.versions.all()}
    if name == first and first not in known:
        return ModelVersion(first, 0, None, datetime.now(UTC))
    return project.current_target() if name is None else project.store.versions.get(name)


def _wants_pool(project: Project) -> bool:
    return bool(project.settings.pool and project.settings.training.distillation.pool)


def _without_pool(settings: TrainingSettings) -> TrainingSettings:
    """The recipe without what it would do with a pool's images, where there is no pool."""
    distillation = settings.distillation.model_copy(update={"pool": 0.0})
    return settings.model_copy(update={"distillation": distillation})


def _check_out(folder: Path, version: str) -> None:
    """What is replaced must be an earlier try of the same."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        if read_meta(folder)["version"] == version:
            return
    except CorruptFileError:
        pass
    raise SettingsError(f"--out: {folder} holds something else than {version}; name another folder")
