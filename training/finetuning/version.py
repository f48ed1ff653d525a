"""A whole fine-tuning, from a job to a version's folder: trained, followed by trackers, exported with its record."""

from pathlib import Path

from training.finetuning.export import export
from training.finetuning.grid_search import forget_weights, search
from training.finetuning.job import Job
from training.finetuning.progress import Report
from training.finetuning.record import begin, is_of, read_meta
from training.finetuning.trackers import open_trackers


def make_version(job: Job, folder: Path, report: Report) -> Path:
    """Leaves weights and record in `folder`; returns what settings' `path` must be to load them.

    Goes on where it was stopped, and does nothing where `folder` holds what this very job came to before. Raises
    ImageError, ModelError, TrainingError, StoreError, or MissingRuntimeError where a tracker is not installed.
    """
    begin(job)
    if not is_of(job, folder):
        with open_trackers(job) as trackers:
            found = search(job, trackers.listening(report))
            export(job, found, folder)
            trackers.finish(found, folder)
        forget_weights(job)
    path: str = read_meta(folder)["path"]
    return folder / path
