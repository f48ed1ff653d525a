"""The processes that train one run together: which of them this is, and what they tell each other."""

import os
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from mad_backend.errors import TrainingError
from mad_backend.settings import LauncherSettings
from training.finetuning.samples import Draw

BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)


def rank() -> int:
    """0 for the process that measures and writes, and for one that trains alone."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes train this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, in place."""
    if world() > 1:
        distributed.all_reduce(values)
    return values


def from_first(values: Sequence[float], device: torch.device) -> list[float]:
    """What process 0 has, for all: each waits here until process 0 comes."""
    told = torch.tensor(values, dtype=torch.float64, device=device)
    if world() > 1:
        distributed.broadcast(told, 0)
    return [float(value) for value in told.tolist()]


def wait() -> None:
    """Until all processes are here."""
    if world() > 1:
        distributed.barrier()


class OwnPart:
    """Of every batch what this process learns: every `world`-th image, so that each has new ones and old ones."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        batch: list[Draw]
        for batch in self._batches:
            yield batch[rank() :: world()]


def joined(module: Any, device: torch.device, *, batch_norm_frozen: bool) -> Any:
    """`module`, an mmengine model; where several processes train it, as one whose gradients they share.

    Batch norm that learns has the statistics of the whole batch (SyncBatchNorm), which PyTorch has for CUDA only:
    raises TrainingError on a CPU.
    """
    if world() == 1:
        return module
    from mmengine.model import MMDistributedDataParallel

    if not batch_norm_frozen and any(isinstance(part, BATCH_NORMS) for part in module.modules()):
        if device.type != "cuda":
            raise TrainingError(
                "several processes on a CPU cannot learn batch norm together; set training.freeze_batch_norm: true, "
                "or train in one process (training.launcher.kind: local)"
            )
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    # Networks with outputs that no loss is taken of are common: torchvision's auxiliary classifiers.
    return MMDistributedDataParallel(
        module=module.to(device), broadcast_buffers=False, find_unused_parameters=True
    )


@contextmanager
def group(launcher: LauncherSettings, device_kind: str) -> Iterator[torch.device]:
    """Joins the processes that torchrun or srun started beside this one; gives the device that is this one's.

    `device_kind` is cpu or cuda. The store at which they meet listens on MASTER_ADDR only.
    """
    if launcher.kind == "slurm":
        os.environ.update(_from_slurm(launcher))
    own_rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    if device_kind == "cuda":
        # srun may show each process its own GPU only.
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=launcher.stall_s)
    distributed.init_process_group(
        "nccl" if device_kind == "cuda" else "gloo",
        store=_store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), own_rank, size, timeout),
        rank=own_rank,
        world_size=size,
        timeout=timeout,
    )
    yield device
    # Not after an error, which others may never hear of: the end of this process ends theirs.
    distributed.destroy_process_group()


def _store(address: str, port: int, own_rank: int, size: int, timeout: timedelta) -> Any:
    if own_rank:
        return distributed.TCPStore(address, port, size, is_master=False, timeout=timeout)  # type: ignore[attr-defined]
    # PyTorch's own would listen on every address of this machine.
    listening = socket.create_server((address, port), reuse_port=False)
    return distributed.TCPStore(  # type: ignore[attr-defined]
        address, port, size, is_master=True, timeout=timeout, master_listen_fd=listening.detach()
    )


def _from_slurm(launcher: LauncherSettings) -> dict[str, str]:
    """torchrun's names for what srun tells a process; the variables are those that mmengine's launcher reads too."""
    address = launcher.address or os.environ.get("MASTER_ADDR")
    if address is None:
        hosts = _output(["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]])
        address = hosts.split()[0]
    return {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": os.environ["SLURM_NTASKS"],
        "LOCAL_RANK": os.environ.get("SLURM_LOCALID", "0"),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(launcher.port or os.environ.get("MASTER_PORT") or 29500),
    }


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """False if a weight, or a statistic, is infinite or not a number."""
    return all(bool(torch.isfinite(value).all()) for value in tensors if value.is_floating_point())
