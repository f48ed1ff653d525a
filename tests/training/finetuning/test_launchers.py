"""Several processes that share each batch: what they are started with, and that the learning curve does not show it."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mad_backend.errors import TrainingError
from mad_backend.settings import LauncherSettings
from tests.training.conftest import CONFIGS
from tests.training.finetuning import slurm
from tests.training.finetuning.small_jobs import MakeJob, job_maker
from tests.training.finetuning.test_grid_search import StopError, assert_close, quiet, search, stop_when
from training.finetuning.children import Start, look_after
from training.finetuning.job import Job
from training.finetuning.launchers import WORKER, devices_of, group_command, group_environment, launch
from training.finetuning.plan import RunResult
from training.finetuning.progress import Meter


@pytest.fixture
def make_job(scenes: Path, tmp_path: Path) -> MakeJob:
    return job_maker(scenes, tmp_path)


@pytest.fixture
def own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are started find the networks of the tests."""
    monkeypatch.setenv("PYTHONPATH", str(CONFIGS.parent))


def launched(job: Job, **launcher: object) -> Job:
    """The same job with other processes."""
    settings = job.settings.model_copy(update={"launcher": LauncherSettings.model_validate(launcher)})
    return replace(job, settings=settings)


@pytest.fixture
def wanted(make_job: MakeJob) -> RunResult:
    """One process with the whole batch."""
    return search(make_job(folder="alone"), quiet).best


def test_a_run_goes_on_under_torchrun_in_two_processes_short_of_memory(
    make_job: MakeJob, wanted: RunResult, own_processes: None
) -> None:
    with pytest.raises(StopError):
        search(make_job("HungryNet"), stop_when(lambda note: "epoch 2" in note))
    # Each process has two images of a batch, and memory for one.
    notes: list[str] = []
    job = launched(make_job("HungryNet"), kind="torchrun", processes=2, stall_s=120)
    found = search(job, lambda note, _done, _total: notes.append(note)).best
    assert found.parts == 2
    assert_close(found, wanted)
    assert notes
    assert (job.folder / "torchrun.log").read_text().count("resumed after epoch 1 of 3") == 2


def test_srun_starts_two_processes_that_learn_as_one(
    make_job: MakeJob,
    wanted: RunResult,
    own_processes: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in slurm.install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, value)
    options = {"partition": "gpu", "arguments": ["--time=01:00:00"]}
    job = launched(make_job(), kind="slurm", processes=2, stall_s=120, slurm=options)
    assert_close(search(job, quiet).best, wanted)
    record = (tmp_path / "slurm" / "record").read_text()
    assert (
        record
        == "--nodes=1 --ntasks=2 --ntasks-per-node=2 --kill-on-bad-exit=1 --partition=gpu --time=01:00:00\n"
    )


def test_all_processes_are_started_again_when_one_ran_out_of_memory(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = launched(make_job(), kind="slurm", processes=2)
    srun = tmp_path / "srun"
    memory = job.folder / "memory.json"
    srun.write_text(f"#!/bin/sh\n[ -e {memory} ] && exit 0\necho '{{\"parts\": 2}}' > {memory}; exit 75\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    launch(job, [1e-2], Meter(quiet, {1e-2: 3}))
    srun.write_text("#!/bin/sh\necho 'error: out of memory for good'; exit 1\n")
    with pytest.raises(TrainingError, match="out of memory for good"):
        launch(job, [1e-2], Meter(quiet, {1e-2: 3}))


def test_torchrun_on_several_nodes_meets_at_the_address_that_is_given(tmp_path: Path) -> None:
    launcher = LauncherSettings(kind="torchrun", processes=4, nodes=2, address="10.0.0.1", port=29400)
    command = group_command(launcher, [*WORKER, "job.json"], tmp_path / "round-001" / "meeting")
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert {
        "--nnodes=2",
        "--nproc-per-node=4",
        "--rdzv-endpoint=10.0.0.1:29400",
        "--rdzv-id=round-001",
    } <= set(command)
    assert command[-3:] == [*WORKER, "job.json"]
    assert "GLOO_SOCKET_IFNAME" not in group_environment(launcher)


def test_on_one_machine_nothing_listens_but_on_loopback(tmp_path: Path) -> None:
    launcher = LauncherSettings(kind="torchrun", processes=2)
    command = group_command(launcher, [*WORKER, "job.json"], tmp_path / "meeting")
    assert {"--rdzv-conf=store_type=file", f"--rdzv-endpoint={tmp_path / 'meeting'}"} <= set(command)
    assert "--local-addr=127.0.0.1" in command
    assert group_environment(launcher)["GLOO_SOCKET_IFNAME"] in {"lo", "lo0"}
    assert group_environment(LauncherSettings(kind="slurm", processes=2))["MASTER_ADDR"] == "127.0.0.1"


def test_devices_are_those_of_settings(make_job: MakeJob) -> None:
    assert devices_of(make_job(launcher={"devices": ["cpu", "cpu"]})) == ("cpu", "cpu")
    assert devices_of(make_job()) == ()


def test_more_processes_than_images_in_a_batch_are_refused_by_each(make_job: MakeJob, tmp_path: Path) -> None:
    from training.finetuning.memory import smallest_share
    from training.finetuning.samples import ReplaySampler

    assert smallest_share(ReplaySampler(3, 3, 4, 0), batch_norm_frozen=True) == 4
    assert smallest_share(ReplaySampler(3, 3, 4, 0), batch_norm_frozen=False) == 2


def child(tmp_path: Path, code: str) -> Start:
    return Start([sys.executable, "-c", code], {}, tmp_path / "run" / "log", {1e-3: tmp_path / "run"})


def meter() -> Meter:
    return Meter(quiet, {1e-2: 3})


def test_the_error_of_a_process_that_fails_is_the_first_it_told(tmp_path: Path) -> None:
    code = "print('error: no such image x'); print('error: the other is gone'); raise SystemExit(1)"
    with pytest.raises(TrainingError, match=r"at 0\.001 on cpu ended with status 1: no such image x; all it"):
        look_after([child(tmp_path, code)], ["cpu"], 60, meter())
    with pytest.raises(TrainingError, match="ended with status 1: ZeroDivisionError: division by zero"):
        look_after([child(tmp_path, "1 / 0")], [None], 60, meter())


def test_a_process_without_progress_is_ended(tmp_path: Path) -> None:
    code = f"import time; open(r'{tmp_path}/pid', 'w').write(str(__import__('os').getpid())); time.sleep(60)"
    with pytest.raises(
        TrainingError, match=r"made no progress for 1 s \(not even a first step\) and was ended"
    ):
        look_after([child(tmp_path, code)], [None], 1, meter())
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_launcher_that_is_not_installed_is_named(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TrainingError, match="srun is not on this machine"):
        search(launched(make_job(), kind="slurm", processes=2), quiet)
