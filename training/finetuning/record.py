"""What a fine-tuning was made from and came to: meta.json beside the weights, and data.jsonl with every checksum."""

import hashlib
import json
import logging
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from mad_backend.errors import CorruptFileError, MadError
from mad_backend.models.registry import stored_key
from mad_backend.models.torch_model import chosen_device
from training.finetuning.balance import class_balance
from training.finetuning.checkpoints import BEST
from training.finetuning.choice import WHY
from training.finetuning.digests import FileDigests, file_digest
from training.finetuning.environment import code_version, library_versions, machine
from training.finetuning.files import write_json
from training.finetuning.grid_search import SearchResult
from training.finetuning.job import Job
from training.finetuning.manifest import changed, counts, data_lines, data_root, decode, encode
from training.finetuning.plan import FailedRun, RunResult
from training.finetuning.rates import run_folder
from training.finetuning.results import read_result

log = logging.getLogger(__name__)

META, DATA, BEGINNING = "meta.json", "data.jsonl", "beginning.json"

MAY_CHANGE: dict[str, Any] = {
    **dict.fromkeys(
        ("learning_rates", "choose", "threads", "workers", "cache_bytes", "launcher", "tracking"), True
    ),
    "distillation": {"cache_bytes"},
}
"""Training settings that may differ between two tries of one fine-tuning: every learning rate has a run of its own."""


def begin(job: Job) -> None:
    """Writes what is about to be learnt into the job's folder; called before anything is.

    What an earlier try left there is gone on with if its data, start and settings were the same, else deleted. Raises
    ImageError naming a file that cannot be read.
    """
    content = encode(data_lines(job, FileDigests(job.folder.parent / "digests.json")))
    fingerprint = _fingerprint(job, content)
    earlier = _beginning(job)
    if earlier and earlier["fingerprint"] != fingerprint:
        log.warning("%s begins anew: its images, start or settings have changed since", job.version)
        shutil.rmtree(job.folder)
        earlier = {}
    for rate in job.settings.learning_rates:
        run = run_folder(job, rate)
        result = read_result(run, rate)
        if isinstance(result, RunResult) and (not (run / BEST).exists() or _is_wanted_whole(job, result)):
            # It was exported and its weights were let go, or it was given up; now it is wanted once more.
            shutil.rmtree(run)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / DATA).write_bytes(content)
    start = {
        "at": _now(),
        "code": asdict(code_version()),
        "machine": asdict(machine(chosen_device(job.started_from, job.target), job.settings.threads)),
    }
    starts = [*earlier.get("starts", ()), start]
    # Last, so that where it is, the list of images is whole.
    write_json(job.folder / BEGINNING, {"fingerprint": fingerprint, "starts": starts})


def _is_wanted_whole(job: Job, result: RunResult) -> bool:
    """Whether a run was given up beside one that no longer counts: rates and choice may change between two tries."""
    beside = result.given_up_beside
    return beside is not None and (
        job.settings.choose != "careful" or beside not in job.settings.learning_rates
    )


def write_record(job: Job, found: SearchResult, weights: Path, folder: Path) -> None:
    """Writes the record into `folder`, which holds nothing but the weights, to be loaded by path `weights`.

    `begin` is made up for where nobody called it.
    """
    if not _beginning(job):
        begin(job)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = (job.folder / DATA).read_bytes()
    best = found.best
    meta = {
        "version": job.version,
        "started_from": job.started_from,
        "learning_rate": best.learning_rate,
        "epoch": best.best.epoch,
        "dev_miou": best.best.dev,
        "chosen": {"why": WHY[job.settings.choose], **_plain(best, leave_out="curve")},
        "path": str(weights.relative_to(folder)),
        "weights": {str(path.relative_to(folder)): file_digest(path) for path in files},
        "data": {
            "file": DATA,
            "sha256": hashlib.sha256(content).hexdigest(),
            "root": str(data_root(job)),
            "images": counts(decode(content)),
        },
        "classes": asdict(class_balance(job.failures, job.replay, job.labels, job.seed)),
        "teachers": {
            name: model.model_dump(mode="json", exclude_defaults=True) for name, model in job.teachers.items()
        },
        "failures": [sample.image_id for sample in job.failures],
        "seed": job.seed,
        "settings": job.settings.model_dump(mode="json"),
        "target": job.target.model_dump(mode="json", exclude_defaults=True),
        "grid": asdict(job.grid),
        "labels": {"set": job.labels.name, "classes": job.labels.names, "counted": job.counted},
        "runs": [_plain(run) for run in found.runs],
        "failed": [_plain(run) for run in found.failed],
        "fingerprint": _beginning(job)["fingerprint"],
        "starts": _beginning(job)["starts"],
        "ended": _now(),
        "libraries": library_versions(),
    }
    (folder / DATA).write_bytes(content)
    # Numbers that are none are null: NaN is not JSON, and a learning rate that was lost has such losses.
    write_json(folder / META, to_jsonable_python(meta, inf_nan_mode="null"))


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of a version's folder; raises CorruptFileError where there is none, or something else."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        if isinstance(meta, dict) and {"version", "weights", "data"} <= meta.keys():
            return meta
        reason = "it does not tell version, weights and data"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise CorruptFileError(f"{folder / META} is not the record of a fine-tuning: {reason}")


def verify(folder: Path, root: Path | None = None) -> list[str]:
    """What is not as the record in `folder` says, one sentence each; none: weights, images and label maps are those.

    `root` is the folder of the data where they have moved. Raises CorruptFileError where there is no record.
    """
    meta = read_meta(folder)
    problems = []
    for name, digest in meta["weights"].items():
        try:
            if file_digest(folder / name) != digest:
                problems.append(f"{folder / name} is another than was written")
        except MadError as error:
            problems.append(str(error))
    try:
        content = (folder / DATA).read_bytes()
        lines = decode(content)
    except (OSError, ValueError) as error:
        return [*problems, f"{folder / DATA} cannot be read: {error}"]
    if hashlib.sha256(content).hexdigest() != meta["data"]["sha256"]:
        problems.append(f"{folder / DATA} is another than was written")
    return problems + changed(lines, root or Path(meta["data"]["root"]))


def is_of(job: Job, folder: Path) -> bool:
    """Whether `folder` holds what this job, which has begun, came to before."""
    try:
        meta = read_meta(folder)
    except CorruptFileError:
        return False
    kept = {run["learning_rate"] for run in (*meta["runs"], *meta["failed"])}
    return meta["fingerprint"] == _beginning(job)["fingerprint"] and kept == set(job.settings.learning_rates)


def _fingerprint(job: Job, content: bytes) -> str:
    shape = [
        hashlib.sha256(content).hexdigest(),
        stored_key(job.started_from, job.target, job.labels, job.grid),
        job.settings.model_dump_json(exclude=MAY_CHANGE),
        str(job.counted),
        str(job.seed),
        *(stored_key(name, model, job.labels, job.grid) for name, model in sorted(job.teachers.items())),
    ]
    return hashlib.sha256("\n".join(shape).encode()).hexdigest()


def _beginning(job: Job) -> dict[str, Any]:
    """What `begin` wrote, {} if nothing."""
    path = job.folder / BEGINNING
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return told


def _plain(run: RunResult | FailedRun, leave_out: str = "") -> dict[str, Any]:
    """All fields but the run's folder, which is gone when the record is read."""
    told = {key: value for key, value in asdict(run).items() if key not in {"folder", leave_out}}
    if isinstance(run, RunResult):
        told["start"] = run.start.told() if run.start else None
    return told


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
