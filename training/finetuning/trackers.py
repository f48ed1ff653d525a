"""Learning curves in TensorBoard and MLflow, beside our own records; none of them stops a run."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from mad_backend.errors import MissingRuntimeError
from mad_backend.pool.files import etag_of
from training.finetuning.checkpoints import CURVE
from training.finetuning.files import write_json
from training.finetuning.grid_search import SearchResult
from training.finetuning.job import Job
from training.finetuning.plan import EpochRecord
from training.finetuning.progress import Report
from training.finetuning.rates import run_folder
from training.finetuning.record import DATA, META

log = logging.getLogger(__name__)

NAMES = {"dev": "dev_miou", "benchmark": "benchmark_miou", "failures": "failures_miou"}
"""What fields of an epoch are called elsewhere, where it is not their own name."""


class Tracker(Protocol):
    """A place where learning curves go. Its methods may raise anything: `Trackers` catches it."""

    name: str

    def epoch(self, rate: float, record: EpochRecord) -> None:
        """One more epoch of the run at this learning rate; each is told once, in order."""

    def finish(self, found: SearchResult, exported: Path) -> None:
        """Everything is trained; folder `exported` holds the weights and their record."""

    def close(self) -> None:
        """Lets go of files and connections, finished or not."""


class Trackers:
    """The trackers of one fine-tuning as one, for the one process that owns the job; a context.

    A tracker that fails is left out until the end, with one warning; then what it missed is told once more. `curves`:
    by learning rate the files in which runs, here or in other processes, tell their epochs. `state` is the file that
    knows which were told, so that a run that goes on after a kill tells none twice.
    """

    def __init__(self, trackers: Sequence[Tracker], curves: Mapping[float, Path], state: Path) -> None:
        self._curves = curves
        self._seen: dict[float, str] = {}
        self._trackers = {tracker.name: tracker for tracker in trackers}
        self._failed: set[str] = set()
        self._state = state
        self._told: dict[str, dict[str, int]] = {}
        if state.exists():
            self._told = json.loads(state.read_text(encoding="utf-8"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for tracker in self._trackers.values():
            with suppress(Exception):
                tracker.close()

    def listening(self, report: Report) -> Report:
        """`report`, before which epochs that have ended since are told."""

        def look_and_report(what: str, done: int, total: int) -> None:
            self.look()
            report(what, done, total)

        return look_and_report if self._trackers else report

    def look(self) -> None:
        """Tells the epochs that have ended since the last look."""
        for rate, path in self._curves.items():
            etag = etag_of(path)
            if etag and self._seen.get(rate) != etag:
                self._seen[rate] = etag
                for record in json.loads(path.read_text(encoding="utf-8")):
                    self.epoch(rate, EpochRecord(**record))

    def epoch(self, rate: float, record: EpochRecord) -> None:
        """Tells one epoch to all that work and do not know it yet."""
        key, changed = f"{rate:g}", False
        for name, tracker in self._trackers.items():
            told = self._told.setdefault(name, {})
            if record.epoch > told.get(key, 0) and self._works(name, partial(tracker.epoch, rate, record)):
                told[key], changed = record.epoch, True
        if changed:
            self._state.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._state, self._told)

    def finish(self, found: SearchResult, exported: Path) -> None:
        """Tells what is not told yet, and what was chosen."""
        self._failed.clear()
        for run in found.runs:
            for record in run.curve:
                self.epoch(run.learning_rate, record)
        for name, tracker in self._trackers.items():
            self._works(name, partial(tracker.finish, found, exported))

    def _works(self, name: str, tell: Callable[[], None]) -> bool:
        if name in self._failed:
            return False
        try:
            tell()
        except Exception as error:  # noqa: BLE001 - whatever a server or a disk does, training goes on
            self._failed.add(name)
            log.warning("tracking in %s failed, training goes on: %s", name, f"{error!r}"[:300])
            return False
        return True


def open_trackers(job: Job) -> Trackers:
    """Those that the job's settings name; raises MissingRuntimeError where a package is not installed."""
    wanted, trackers = job.settings.tracking, list[Tracker]()
    if wanted.tensorboard:
        trackers.append(TensorBoardTracker(job.folder / "tensorboard"))
    if wanted.mlflow is not None:
        trackers.append(MlflowTracker(wanted.mlflow, job))
    curves = {rate: run_folder(job, rate) / CURVE for rate in job.settings.learning_rates}
    return Trackers(trackers, curves, job.folder / "tracking.json")


class TensorBoardTracker:
    """Event files, a folder for each learning rate: `tensorboard --logdir` shows them side by side."""

    name = "tensorboard"

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise _missing("tensorboard", error) from error
        self._new_writer: Callable[[str], Any] = SummaryWriter
        self._folder = folder
        self._writers: dict[float, Any] = {}

    def epoch(self, rate: float, record: EpochRecord) -> None:
        if rate not in self._writers:
            self._writers[rate] = self._new_writer(str(self._folder / f"lr-{rate:g}"))
        for name, value in metrics_of(record).items():
            self._writers[rate].add_scalar(name, value, record.epoch)
        self._writers[rate].flush()

    def finish(self, found: SearchResult, exported: Path) -> None:
        pass  # curves are all there is to show

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class MlflowTracker:
    """One MLflow run for each learning rate below one for the fine-tuning, in an experiment named after the model.

    `uri` is a folder, or the address of a server; credentials come from MLflow's own environment variables.
    """

    name = "mlflow"

    def __init__(self, uri: str, job: Job) -> None:
        # MLflow reports its use to its makers and waits minutes for a server that is away, unless told otherwise.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        if "://" not in uri:
            # Folders still work, but since version 3.7 MLflow wants to be told that one is meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = Path(uri).absolute().as_uri()
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise _missing("mlflow", error) from error
        self._new_client = partial(MlflowClient, tracking_uri=uri)
        self._client: Any = None
        self._job = job
        self._file = job.folder / "mlflow.json"
        self._runs: dict[str, str] = {}
        if self._file.exists():
            self._runs = json.loads(self._file.read_text(encoding="utf-8"))

    def epoch(self, rate: float, record: EpochRecord) -> None:
        self._log(self._run_of(rate), record)

    def finish(self, found: SearchResult, exported: Path) -> None:
        parent = self._parent()
        self._log(parent, found.best.best)
        self._client.set_tag(parent, "mad.learning_rate", f"{found.best.learning_rate:g}")
        for name in (META, DATA):
            self._client.log_artifact(parent, str(exported / name))
        ended = {self._run_of(run.learning_rate) for run in found.runs}
        for run in self._runs.values():
            self._client.set_terminated(run, "FINISHED" if run in ended or run == parent else "FAILED")

    def close(self) -> None:
        pass  # a run that is not finished is gone on with

    def _log(self, run: str, record: EpochRecord) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, record.epoch) for name, value in metrics_of(record).items()]
        self._client.log_batch(run, metrics=metrics)

    def _run_of(self, rate: float) -> str:
        parent = self._parent()
        tags = {"mlflow.parentRunId": parent}
        return self._run(f"lr-{rate:g}", f"{self._job.version} at {rate:g}", tags, {"learning_rate": rate})

    def _parent(self) -> str:
        return self._run("", self._job.version, {}, {})

    def _run(self, key: str, title: str, tags: dict[str, str], parameters: dict[str, Any]) -> str:
        """The MLflow run under `key` of the job's folder, made if there is none yet."""
        self._client = self._client or self._new_client()
        if key not in self._runs:
            from mlflow.entities import Param

            job = self._job
            made = self._client.create_run(
                self._experiment(),
                run_name=title,
                tags={**tags, "mad.version": job.version, "mad.started_from": job.started_from},
            ).info.run_id
            all_of_them = {**flattened(job.settings.model_dump(mode="json")), "seed": job.seed, **parameters}
            self._client.log_batch(made, params=[Param(k, str(v)) for k, v in all_of_them.items()])
            self._runs[key] = made
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._file, self._runs)
        return self._runs[key]

    def _experiment(self) -> str:
        name = self._job.version.partition("@")[0]
        found = self._client.get_experiment_by_name(name)
        experiment: str = found.experiment_id if found else self._client.create_experiment(name)
        return experiment


def metrics_of(record: EpochRecord) -> dict[str, float]:
    """An epoch's numbers by name, without those that are absent or no number (a lost run's loss)."""
    numbers = {name: value for name, value in asdict(record).items() if name != "epoch"}
    return {
        NAMES.get(name, name): float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"distillation.pool": 0.0, ...} of nested tables."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _missing(extra: str, error: ModuleNotFoundError) -> MissingRuntimeError:
    return MissingRuntimeError(
        f"training.tracking.{extra} needs {error.name}; pip install 'mad-segmentation[{extra}]'"
    )
