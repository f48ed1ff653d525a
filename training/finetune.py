"""Fine-tuning of a round: f(i-1) on S(1) u ... u S(i) u S(0) (Algorithm 1, lines 18-19)."""

import logging
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mad_backend.core.records import ModelVersion, PoolImage
from mad_backend.core.rounds import Round
from mad_backend.errors import SettingsError, TrainingError
from mad_backend.models.registry import is_trainable
from mad_backend.pool.sources import LabelledImage
from mad_backend.pool.truths import Truth
from mad_backend.settings import ModelSettings, TrainingSettings
from mad_backend.targets import target_settings
from training.finetuning.job import ANSWERS, Job
from training.finetuning.progress import Report
from training.finetuning.record import read_meta
from training.finetuning.samples import Sample
from training.finetuning.version import make_version
from training.leaks import images_to_leave_out
from training.project import Project

log = logging.getLogger(__name__)


def finetune_round(project: Project, found: Round, report: Report) -> str:
    """Trains f(i) and records it as a version; returns its name. What an earlier run finished is kept."""
    version = f"{project.settings.models.name}@{found.number}"
    if any(v.version == version for v in project.store.versions.all()):
        return version
    folder = project.settings.workspace / "checkpoints" / version
    path = make_version(round_job(project, found, version), folder, report)
    project.store.versions.record(version, found.number, str(path), datetime.now(UTC))
    meta = read_meta(folder)
    log.info(
        "%s: learning rate %g, epoch %d, dev mIoU %.4f",
        version,
        meta["learning_rate"],
        meta["epoch"],
        meta["dev_miou"],
    )
    return version


def round_job(project: Project, found: Round, version: str) -> Job:
    """What fine-tuning in this round is: its images, its start, its settings."""
    settings = project.settings.training
    failures = failure_images(project, found.number)
    pool = unlabelled_images(project, found.number) if settings.distillation.pool else []
    trained = [*(i.image for i in failures), *(i.image for i in project.s0), *pool]
    left_out = images_to_leave_out(project, found.number, trained)
    return make_job(
        project,
        version,
        project.target_of(found),
        labelled_samples(project, _without(failures, left_out)),
        labelled_samples(project, _without(project.s0, left_out)),
        tuple(project.local_file(image) for image in pool if image.image_id not in left_out),
        settings,
        project.settings.seed + found.number,
        project.settings.workspace / "training" / f"round-{found.number:03d}",
    )


def make_job(
    project: Project,
    version: str,
    started_from: ModelVersion,
    failures: Sequence[Sample],
    replay: Sequence[Sample],
    unlabelled: Sequence[Path],
    settings: TrainingSettings,
    seed: int,
    folder: Path,
) -> Job:
    """A fine-tuning of this project's target to `version`, of which S, S(0) and pool images were decided."""
    learnt, held_out = split_failures(failures, settings.failures_dev, seed)
    return Job(
        version=version,
        started_from=started_from.version,
        target=target_settings(started_from, project.settings),
        labels=project.labels,
        grid=project.grid,
        failures=tuple(learnt),
        replay=tuple(replay),
        unlabelled=tuple(unlabelled),
        dev=labelled_samples(project, project.t0_dev),
        failures_dev=tuple(held_out),
        counted=project.counted_classes,
        settings=settings,
        seed=seed,
        folder=folder,
        teachers=teacher_settings(project),
        answers=(project.settings.cache or project.settings.workspace) / ANSWERS,
    )


def teacher_settings(project: Project) -> dict[str, ModelSettings]:
    """Of the competing models that settings name as teachers; raises SettingsError for a name that is not theirs."""
    known, wanted = project.settings.models.competing, project.settings.training.distillation.teachers
    if wanted == "all":
        return {name: model for name, model in known.items() if is_trainable(model.kind)}
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise SettingsError(
            f"training.distillation.teachers names {', '.join(unknown)}; models.competing has {', '.join(known)}"
        )
    return {name: known[name] for name in wanted}


def failure_images(project: Project, number: int) -> list[LabelledImage]:
    """S(1) u ... u S(number) with the masks that count; raises TrainingError where there is none."""
    found = []
    for earlier in range(1, number + 1):
        masks = project.store.final_masks(earlier)
        for failure in project.store.choices.failures(earlier):
            if failure.image_id in masks and failure.image_id in project.pool:
                truth = Truth(Path(masks[failure.image_id].path))
                found.append(LabelledImage(project.pool[failure.image_id], truth))
    if not found:
        raise TrainingError(f"round {number} has no labelled image in S; nothing to fine-tune on")
    return found


def split_failures(failures: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(learnt, held out): `share` of S, drawn by `seed`, chooses instead of being learnt; at least one is learnt."""
    count = min(round(len(failures) * share), len(failures) - 1)
    drawn = set(np.random.default_rng(seed).permutation(len(failures))[:count].tolist())
    learnt = [sample for n, sample in enumerate(failures) if n not in drawn]
    return learnt, [failures[n] for n in sorted(drawn)]


def unlabelled_images(project: Project, number: int) -> list[PoolImage]:
    """The pool's readable images that are in no test set and no duel, by image id."""
    tested = project.store.duels.images()
    for earlier in range(1, number + 1):
        tested.update(project.store.choices.test_set(earlier))
    unreadable = project.store.choices.unreadable()
    return [i for name, i in sorted(project.pool.items()) if name not in tested and name not in unreadable]


def _without(items: Iterable[LabelledImage], left_out: Container[str]) -> list[LabelledImage]:
    return [item for item in items if item.image.image_id not in left_out]


def labelled_samples(project: Project, items: Sequence[LabelledImage]) -> tuple[Sample, ...]:
    """The images as training takes them, those that lie elsewhere fetched once."""
    return tuple(Sample(i.image.image_id, project.local_file(i.image), i.truth) for i in items)
