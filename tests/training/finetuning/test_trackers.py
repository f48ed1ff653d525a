"""Learning curves in real TensorBoard files and a real MLflow store; a tracker that fails stops nothing."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from mad_backend.errors import MissingRuntimeError
from mad_backend.settings import TrackingSettings
from training.finetune import round_job
from training.finetuning.grid_search import SearchResult
from training.finetuning.job import Job
from training.finetuning.plan import EpochRecord, RunResult
from training.finetuning.trackers import (
    MlflowTracker,
    TensorBoardTracker,
    Trackers,
    metrics_of,
    open_trackers,
)
from training.project import Project

ONE = (EpochRecord(1, 0.9, 0.2, 0.2), EpochRecord(2, 0.7, 0.3, 0.3))
OTHER = (EpochRecord(1, 0.8, 0.25, 0.2, 0.3),)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def found(tmp_path: Path) -> SearchResult:
    runs = tuple(
        RunResult(rate, curve[-1], curve, tmp_path / f"lr-{rate:g}")
        for rate, curve in ((1e-3, ONE), (3e-3, OTHER))
    )
    return SearchResult(runs, runs[0])


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "meta.json").write_text("{}")
    (folder / "data.jsonl").write_text("")
    return folder


@pytest.fixture
def job(finished: Project, tmp_path: Path) -> Job:
    return replace(round_job(finished, finished.store.rounds.get(1), "scenes@1"), folder=tmp_path / "job")


def with_tracking(job: Job, **tracking: object) -> Job:
    told = TrackingSettings.model_validate(tracking)
    return replace(job, settings=job.settings.model_copy(update={"tracking": told}))


@dataclass
class Listener:
    """Keeps what it is told; fails while `broken`."""

    name: str
    broken: bool = False
    epochs: list[tuple[float, int]] = field(default_factory=list)
    finished: int = 0

    def epoch(self, rate: float, record: EpochRecord) -> None:
        if self.broken:
            raise ConnectionError("away")
        self.epochs.append((rate, record.epoch))

    def finish(self, found: SearchResult, exported: Path) -> None:
        if self.broken:
            raise ConnectionError("away")
        self.finished += 1

    def close(self) -> None:
        if self.broken:
            raise ConnectionError("away")


ALL = [(1e-3, 1), (1e-3, 2), (3e-3, 1)]


def test_epochs_are_told_as_runs_end_them_and_once_only(
    tmp_path: Path, found: SearchResult, exported: Path
) -> None:
    curves = {rate: tmp_path / f"{rate:g}.json" for rate in (1e-3, 3e-3)}
    state = tmp_path / "state.json"
    first, reports = Listener("first"), []
    report = Trackers([first], curves, state).listening(lambda *told: reports.append(told))
    report("starting", 0, 3)
    curves[1e-3].write_text(json.dumps([asdict(record) for record in ONE[:1]]))
    report("training", 1, 3)
    report("training", 2, 3)
    assert first.epochs == ALL[:1]
    assert reports == [("starting", 0, 3), ("training", 1, 3), ("training", 2, 3)]

    after_a_kill = Listener("first")
    with Trackers([after_a_kill], curves, state) as trackers:
        trackers.look()
        trackers.finish(found, exported)
    assert after_a_kill.epochs == ALL[1:]
    assert after_a_kill.finished == 1


def test_a_tracker_that_fails_is_warned_of_once_and_told_everything_in_the_end(
    tmp_path: Path, found: SearchResult, exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, works = Listener("broken", broken=True), Listener("works")
    with Trackers([broken, works], {}, tmp_path / "state.json") as trackers:
        for record in ONE:
            trackers.epoch(1e-3, record)
        assert works.epochs == ALL[:2]
        assert caplog.messages == ["tracking in broken failed, training goes on: ConnectionError('away')"]
        broken.broken = False
        trackers.finish(found, exported)
        assert broken.epochs == works.epochs == ALL
        assert (broken.finished, works.finished) == (1, 1)
        broken.broken = True  # closing fails too


def test_tensorboard_shows_a_curve_for_each_learning_rate(
    job: Job, found: SearchResult, exported: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_trackers(with_tracking(job, tensorboard=True)) as trackers:
        trackers.epoch(1e-3, ONE[0])
        trackers.finish(found, exported)
    read = {}
    for folder in sorted((job.folder / "tensorboard").iterdir()):
        events = EventAccumulator(str(folder)).Reload()
        read[folder.name] = {
            tag: [(e.step, pytest.approx(e.value)) for e in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
    assert read == {
        "lr-0.001": {
            "loss": [(1, 0.9), (2, 0.7)],
            "dev_miou": [(1, 0.2), (2, 0.3)],
            "benchmark_miou": [(1, 0.2), (2, 0.3)],
        },
        "lr-0.003": {
            "loss": [(1, 0.8)], "dev_miou": [(1, 0.25)], "benchmark_miou": [(1, 0.2)], "failures_miou": [(1, 0.3)],
        },
    }  # fmt: skip


def test_mlflow_has_a_run_for_each_learning_rate_and_goes_on_with_it_after_a_kill(
    job: Job, found: SearchResult, exported: Path, tmp_path: Path
) -> None:
    tracked = with_tracking(job, mlflow=str(tmp_path / "mlruns"))
    with open_trackers(tracked) as trackers:
        trackers.epoch(1e-3, ONE[0])
    with open_trackers(tracked) as trackers:
        trackers.finish(found, exported)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("scenes")
    assert experiment
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"scenes@1", "scenes@1 at 0.001", "scenes@1 at 0.003"}
    parent, one = runs["scenes@1"], runs["scenes@1 at 0.001"]
    history = client.get_metric_history(one.info.run_id, "dev_miou")
    assert [(m.step, m.value) for m in history] == [(1, 0.2), (2, 0.3)]
    assert one.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert one.data.params["learning_rate"] == "0.001"
    assert one.data.params["epochs"] == "2"
    assert parent.data.metrics["dev_miou"] == 0.3
    assert parent.data.tags["mad.started_from"] == "scenes@0"
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    names = {artefact.path for artefact in client.list_artifacts(parent.info.run_id)}
    assert names == {"meta.json", "data.jsonl"}


def test_an_mlflow_server_that_is_away_is_one_warning(
    job: Job, found: SearchResult, exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        port = unused.getsockname()[1]
        with open_trackers(with_tracking(job, mlflow=f"http://127.0.0.1:{port}")) as trackers:
            trackers.epoch(1e-3, ONE[0])
            trackers.epoch(1e-3, ONE[1])
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("training.")]
    assert message.startswith("tracking in mlflow failed, training goes on: MlflowException(")
    assert not (job.folder / "tracking.json").exists()


@pytest.mark.parametrize(
    ("tracking", "absent"), [({"mlflow": "mlruns"}, "mlflow"), ({"tensorboard": True}, "tensorboard")]
)
def test_a_package_that_is_not_installed_is_named_with_its_cure(
    job: Job, monkeypatch: pytest.MonkeyPatch, tracking: dict[str, object], absent: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(
        MissingRuntimeError, match=rf"training.tracking.{absent} needs {absent}.*\[{absent}\]"
    ):
        open_trackers(with_tracking(job, **tracking))


def test_without_trackers_reports_are_left_as_they_are(job: Job) -> None:
    def report(what: str, done: int, total: int) -> None: ...

    assert open_trackers(job).listening(report) is report


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://ann:secret@example.com", "credentials do not belong into an address; MLflow takes"),
        ("https://example.com/?token=secret", "credentials do not belong into an address"),
        ("ftp://example.com", "wanted a folder or an address that begins with one of http://, https://"),
        ("", "wanted a folder or an address"),
    ],
)
def test_an_address_that_mlflow_cannot_have_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrackingSettings(mlflow=uri)


def test_numbers_that_are_none_are_left_out() -> None:
    assert metrics_of(EpochRecord(1, float("nan"), 0.5, 0.25)) == {"dev_miou": 0.5, "benchmark_miou": 0.25}


def test_both_trackers_have_names_of_their_own() -> None:
    assert {TensorBoardTracker.name, MlflowTracker.name} == {"tensorboard", "mlflow"}
