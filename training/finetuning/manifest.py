"""The images of a fine-tuning with their checksums, one JSON line each."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mad_backend.errors import MadError
from mad_backend.pool.truths import Truth
from training.finetuning.digests import READERS, FileDigests, file_digest
from training.finetuning.job import Job
from training.finetuning.samples import Sample


class Use(StrEnum):
    """What an image of a fine-tuning is for; `failures_dev` is what is held out of S."""

    FAILURES = "failures"
    FAILURES_DEV = "failures_dev"
    REPLAY = "replay"
    DEV = "dev"
    UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class DataLine:
    """One image, and its label map where it has one: paths relative to the manifest's root, SHA-256 in hex.

    `truth` is a `Truth` as JSON; its digest is `Truth.digest`, which is the file's for index PNGs of our own ids.
    """

    use: Use
    image_id: str
    image: str
    sha256: str
    truth: dict[str, Any] | None = None
    truth_sha256: str | None = None


_TRUTH = TypeAdapter(Truth)
_LINE = TypeAdapter(DataLine)


def data_root(job: Job) -> Path:
    """The deepest folder that holds every image and label map of the job."""
    samples = [sample for _, sample in _labelled(job)]
    files = [*(s.image for s in samples), *(s.truth.path for s in samples), *job.unlabelled]
    return Path(os.path.commonpath([path.absolute().parent for path in files]))


def data_lines(job: Job, digests: FileDigests) -> list[DataLine]:
    """Every image of the job by use, in the job's order; raises ImageError naming a file that cannot be read."""
    labelled, root = _labelled(job), data_root(job)
    images = digests.of_files([*(s.image for _, s in labelled), *job.unlabelled])
    truths = digests.of_truths(s.truth for _, s in labelled)
    lines = []
    for use, sample in labelled:
        truth = _TRUTH.dump_python(sample.truth, mode="json", exclude_none=True)
        truth["path"] = _relative(sample.truth.path, root)
        image = _relative(sample.image, root)
        lines.append(DataLine(use, sample.image_id, image, images[sample.image], truth, truths[sample.truth]))
    return lines + [
        DataLine(Use.UNLABELLED, _relative(path, root), _relative(path, root), images[path])
        for path in job.unlabelled
    ]


def encode(lines: Sequence[DataLine]) -> bytes:
    """JSON lines; equal data give equal bytes."""
    return b"".join(_LINE.dump_json(line, exclude_none=True) + b"\n" for line in lines)


def decode(content: bytes) -> list[DataLine]:
    """Raises ValueError for anything else than `encode` writes."""
    return [_LINE.validate_json(line) for line in content.splitlines()]


def counts(lines: Sequence[DataLine]) -> dict[str, int]:
    """Images by use."""
    return {str(use): n for use, n in sorted(Counter(line.use for line in lines).items())}


def changed(lines: Sequence[DataLine], root: Path) -> list[str]:
    """What is not as it was, one sentence a file; every file below `root` is read anew."""
    checks: list[tuple[str, str, Callable[[], str]]] = []
    for line in lines:
        image = root / line.image
        checks.append((f"image {image} ({line.use})", line.sha256, partial(file_digest, image)))
        if line.truth is not None and line.truth_sha256 is not None:
            truth = _TRUTH.validate_python({**line.truth, "path": root / line.truth["path"]})
            checks.append((f"label map {truth} ({line.use})", line.truth_sha256, truth.digest))
    with ThreadPoolExecutor(READERS, thread_name_prefix="digest") as pool:
        return [problem for problem in pool.map(_problem, checks) if problem]


def _problem(check: tuple[str, str, Callable[[], str]]) -> str:
    what, digest, read = check
    try:
        return "" if read() == digest else f"{what} is another than at that time"
    except MadError as error:
        return f"{what}: {error}"


def _labelled(job: Job) -> list[tuple[Use, Sample]]:
    uses = {
        Use.FAILURES: job.failures,
        Use.FAILURES_DEV: job.failures_dev,
        Use.REPLAY: job.replay,
        Use.DEV: job.dev,
    }
    return [(use, sample) for use, samples in uses.items() for sample in samples]


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path.absolute(), root)
