"""Ray Train starts the processes that share each batch; called by the launcher as `worker` is.

PyTorch's store, at which they meet, listens on all addresses of the first one's node: Ray Train makes it.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mad_backend.engines.ray_connection import connect, import_ray
from mad_backend.errors import MadError, MissingRuntimeError
from training.finetuning.job import Job
from training.finetuning.memory import TryAgainError
from training.finetuning.worker import ERROR, TRY_AGAIN, train_and_tell

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Trains as told; an error is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--rate", type=float, action="append", required=True)
    parser.add_argument("--together", action="store_true", help="which Ray's processes always are")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    try:
        run(Job.read(given.job), given.job, given.rate)
    except MadError as error:
        sys.stderr.write(f"{ERROR}{error}\n")
        return 1
    except Exception as error:  # the top of a command line
        log.exception("Ray Train failed")
        told = str(error)
        sys.stderr.write(f"{ERROR}{_cause(told)}\n")
        return TRY_AGAIN if TryAgainError.__name__ in told else 1
    return 0


def run(job: Job, path: Path, rates: Sequence[float]) -> None:
    """Trains on the cluster of the job's settings; raises MadError, or what Ray Train makes of a worker's error."""
    launcher = job.settings.launcher
    asked = launcher.ray
    ray = import_ray(asked.address, "training.launcher.kind ray")
    connect(ray, asked.address, "training.launcher.ray.address")
    try:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise MissingRuntimeError(
            f"training.launcher.kind ray needs Ray Train ({error}); pip install 'mad-segmentation[ray-train]'"
        ) from error

    use_gpu = asked.gpus_per_process > 0
    resources = {"CPU": asked.cpus_per_process, **({"GPU": asked.gpus_per_process} if use_gpu else {})}
    trainer = TorchTrainer(
        _train,
        train_loop_config={"job": str(path), "rates": list(rates)},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=int(launcher.stall_s)),
        scaling_config=ScalingConfig(
            num_workers=launcher.processes * launcher.nodes, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(name="ray", storage_path=str(job.folder.absolute())),
    )
    try:
        trainer.fit()
    finally:
        ray.shutdown()


def _train(told: dict[str, Any]) -> None:
    """In each of Ray's processes, whose group Ray Train has made."""
    from ray.train.torch import get_device

    train_and_tell(Job.read(Path(told["job"])), told["rates"], str(get_device()))


def _cause(told: str) -> str:
    """The last line of a worker's traceback, in what Ray Train says of it."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if "Error" in line.partition(":")[0]), lines[-1] if lines else told
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
