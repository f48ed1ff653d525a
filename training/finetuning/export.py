"""The chosen weights as a version: safetensors and their record, complete or not at all."""

import shutil
from pathlib import Path

from training.finetuning.grid_search import SearchResult
from training.finetuning.job import Job
from training.finetuning.record import write_record
from training.finetuning.run import load_best


def export(job: Job, found: SearchResult, final: Path) -> Path:
    """Writes `final`, replacing what an interrupted export left; returns what settings' `path` must be to load it."""
    model = job.start("cpu")
    load_best(model, found.best)
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    path = model.save(temporary)
    write_record(job, found, path, temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    return final / path.relative_to(temporary)
