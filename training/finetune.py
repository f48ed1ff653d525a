"""Fine-tuning of a round: f(i-1) on S(1) u ... u S(i) u S(0), the learning rate by grid search (Algorithm 1)."""

import logging
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mad_backend.core.rounds import Round
from mad_backend.errors import TrainingError
from mad_backend.models.registry import TRAINABLE
from mad_backend.models.torch_model import TorchModel
from training.dataset import Sample
from training.evaluate import measure_on
from training.project import Project
from training.trainer import RunPlan, RunResult, load_best, train, write_json

log = logging.getLogger(__name__)

MIN_FREE_BYTES = 2_000_000_000
"""Checkpoints of a grid, with optimiser state, of the models this project is for."""

Report = Callable[[str, int, int], None]
"""(what is done, steps done, steps in all)."""


def finetune_round(project: Project, found: Round, report: Report) -> str:
    """Trains f(i) and records it as a version; returns its name. What an earlier run finished is kept."""
    number = found.number
    version = f"{project.settings.models.name}@{number}"
    if any(v.version == version for v in project.store.versions.all()):
        return version
    settings = project.settings.training
    project.check_disk(MIN_FREE_BYTES)
    failures = failure_samples(project, number)
    replay = [Sample(i.image.image_id, project.local_file(i.image), i.mask) for i in project.s0]
    set_threads(settings.threads)
    measure = measure_on(
        project.t0_dev, project.reader, project.grid, len(project.labels), project.counted_classes
    )
    folder = project.settings.workspace / "training" / f"round-{number:03d}"
    results = []
    for position, rate in enumerate(settings.learning_rates):
        plan = RunPlan(
            failures,
            replay,
            project.grid,
            settings,
            project.settings.seed + number,
            measure,
            _progress(report, rate, position, len(settings.learning_rates), settings.epochs),
        )
        results.append(train(load_start(project, found), rate, plan, folder / f"lr-{rate:g}"))
    # The highest dev mIoU; of equals the smallest step away from f(i-1).
    best = min(results, key=lambda r: (-r.best_miou, r.learning_rate))
    path = _export(project, found, version, best, results, [s.image_id for s in failures])
    project.store.versions.record(version, number, str(path), datetime.now(UTC))
    log.info(
        "%s: learning rate %g, epoch %d, dev mIoU %.4f",
        version,
        best.learning_rate,
        best.best_epoch,
        best.best_miou,
    )
    return version


def failure_samples(project: Project, number: int) -> list[Sample]:
    """S(1) u ... u S(number) with the masks that count. No image of any T is in it, by construction of the cut."""
    samples = []
    tested: set[str] = set()
    for earlier in range(1, number + 1):
        masks = project.store.final_masks(earlier)
        tested.update(project.store.choices.test_set(earlier))
        for failure in project.store.choices.failures(earlier):
            if failure.image_id in masks and failure.image_id in project.pool:
                image = project.pool[failure.image_id]
                file, mask = project.local_file(image), Path(masks[failure.image_id].path)
                samples.append(Sample(image.image_id, file, mask))
    leaked = tested & {s.image_id for s in samples}
    if leaked:
        raise TrainingError(
            f"images {sorted(leaked)[:5]} of a test set T are in S; the store was changed by hand"
        )
    if not samples:
        raise TrainingError(f"round {number} has no labelled image in S; nothing to fine-tune on")
    return samples


def load_start(project: Project, found: Round) -> TorchModel:
    """f(i-1), freshly loaded; raises TrainingError for a kind that cannot be trained."""
    kind = project.settings.models.target.kind
    if kind not in TRAINABLE:
        raise TrainingError(
            f'the target is of kind "{kind}"; only {", ".join(sorted(TRAINABLE))} can be fine-tuned'
        )
    model = project.target(project.target_of(found))
    if not isinstance(model, TorchModel):
        raise TrainingError(f'the target "{model.name}" is not a PyTorch model and cannot be fine-tuned')
    return model


def set_threads(threads: int | None) -> None:
    """Fixes the number of CPU threads: sums over another number of threads round differently."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def _progress(
    report: Report, rate: float, position: int, rates: int, epochs: int
) -> Callable[[int, int, int], None]:
    def progress(epoch: int, step: int, steps: int) -> None:
        note = f"fine-tuning at {rate:g} ({position + 1} of {rates}), epoch {epoch} of {epochs}"
        report(note, position * steps + step, rates * steps)

    return progress


def _export(
    project: Project,
    found: Round,
    version: str,
    best: RunResult,
    results: Sequence[RunResult],
    failures: Sequence[str],
) -> Path:
    """Writes the chosen weights as safetensors and meta.json beside them, complete or not at all."""
    model = load_start(project, found)
    load_best(model, best)
    final = project.settings.workspace / "checkpoints" / version
    temporary = final.with_name(f".{version}.tmp")
    for leftover in (temporary, final):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    path = model.save(temporary)
    meta = {
        "version": version,
        "started_from": model.name,
        "learning_rate": best.learning_rate,
        "epoch": best.best_epoch,
        "dev_miou": best.best_miou,
        "seed": project.settings.seed,
        "settings": project.settings.training.model_dump(mode="json"),
        "failures": list(failures),
        "runs": [
            {"learning_rate": r.learning_rate, "curve": [[e.epoch, e.loss, e.dev_miou] for e in r.curve]}
            for r in results
        ],
    }
    write_json(temporary / "meta.json", meta)
    temporary.rename(final)
    return final / path.relative_to(temporary) if path != temporary else final
