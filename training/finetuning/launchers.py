"""Where runs are trained: in this process, one process per device, or many that share each batch (`launcher`)."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mad_backend.errors import TrainingError
from mad_backend.settings import LauncherSettings
from training.finetuning.children import Start, look_after
from training.finetuning.choice import by_risk
from training.finetuning.job import Job
from training.finetuning.memory import Parts
from training.finetuning.progress import Meter
from training.finetuning.rates import run_folder, train_rates

WORKER = ("-m", "training.finetuning.worker")
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def launch(job: Job, rates: Sequence[float], meter: Meter) -> None:
    """Trains at each of `rates`; raises TrainingError with what a process that failed said.

    Runs that follow one another are all looked at again, the safest first: what is finished is only read, and tells
    the others whether they are hopeless.
    """
    launcher = job.settings.launcher
    devices = devices_of(job)
    if launcher.kind != "local":
        _together(job, by_risk(job, job.settings.learning_rates), meter)
    elif len(devices) > 1 and len(rates) > 1:
        path = job.write()
        starts = [_alone(job, path, rate) for rate in rates]
        look_after(starts, devices, launcher.stall_s, meter)
    else:
        device = devices[0] if devices else None
        train_rates(job, by_risk(job, job.settings.learning_rates), meter, meter.finish, device)


def devices_of(job: Job) -> tuple[str, ...]:
    """One process for each; none: where the target's settings say, in this process."""
    given = job.settings.launcher.devices
    if given or job.target.device not in {"auto", "cuda"} or torch.cuda.device_count() < 2:
        return given
    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def group_command(launcher: LauncherSettings, worker: Sequence[str], meeting: Path) -> list[str]:
    """What starts `worker`, a command, in all processes of torchrun or slurm; `meeting` is a file they may meet at."""
    count = launcher.processes
    match launcher.kind:
        case "torchrun":
            command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={launcher.nodes}"]
            command += [f"--nproc-per-node={count}", "--max-restarts=0", "--rdzv-backend=c10d"]
            if launcher.nodes == 1:
                # Neither a file nor the loopback interface can be reached from elsewhere, as torchrun's own store can.
                command += [f"--rdzv-endpoint={meeting}", "--rdzv-conf=store_type=file"]
                command += ["--local-addr=127.0.0.1"]
            else:
                command += [f"--rdzv-endpoint={launcher.address}:{launcher.port}"]
                command += [f"--rdzv-id={meeting.parent.name}"]
            return [*command, *worker]
        case "slurm":
            command = ["srun", f"--nodes={launcher.nodes}", f"--ntasks={count * launcher.nodes}"]
            command += [f"--ntasks-per-node={count}", "--kill-on-bad-exit=1"]
            if launcher.slurm.partition:
                command.append(f"--partition={launcher.slurm.partition}")
            return [*command, *launcher.slurm.arguments, sys.executable, *worker]
        case "ray":
            return [sys.executable, "-m", "training.finetuning.ray_launcher", *worker[len(WORKER) :]]
        case "local":
            return [sys.executable, *worker]


def group_environment(launcher: LauncherSettings) -> dict[str, str]:
    """What the processes of a group need beside our own environment."""
    # The processes meet at a store of our own making, which listens on one address only: `ranks.group`.
    added = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    if launcher.nodes == 1:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            added[name] = os.environ.get(name, LOOPBACK)
    if launcher.kind == "slurm":
        if launcher.nodes == 1:
            added["MASTER_ADDR"] = launcher.address or "127.0.0.1"
        added["MASTER_PORT"] = str(launcher.port or os.environ.get("MASTER_PORT") or _free_port())
    return added


def _alone(job: Job, path: Path, rate: float) -> Start:
    command = [sys.executable, *WORKER, str(path), f"--rate={rate!r}"]
    return Start(command, {}, run_folder(job, rate) / "output.log", {rate: run_folder(job, rate)})


def _together(job: Job, rates: Sequence[float], meter: Meter) -> None:
    """All rates in one start of all processes; again with smaller parts when one of them ran out of memory."""
    launcher = job.settings.launcher
    meeting = job.folder / "meeting"
    worker = [*WORKER, str(job.write()), *(f"--rate={rate!r}" for rate in rates), "--together"]
    start = Start(
        group_command(launcher, worker, meeting),
        group_environment(launcher),
        job.folder / f"{launcher.kind}.log",
        {rate: run_folder(job, rate) for rate in rates},
    )
    while True:
        meeting.unlink(missing_ok=True)
        before = Parts(job.folder).number
        try:
            look_after([start], [None], launcher.stall_s, meter)
        except TrainingError:
            if Parts(job.folder).number == before:
                raise
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
