"""The process that another one starts to train: `python -m training.finetuning.worker JOB.json --rate 1e-5`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mad_backend.errors import MadError
from training.finetuning.job import Job
from training.finetuning.memory import TryAgainError
from training.finetuning.progress import Progress, ProgressFile
from training.finetuning.ranks import group, rank
from training.finetuning.rates import run_folder, train_rates
from training.processes import end_with_parent

log = logging.getLogger(__name__)

TRY_AGAIN = 75
"""Exit status: as it is, but with smaller parts (EX_TEMPFAIL of sysexits.h)."""
ERROR = "error: "
"""Begins the line that says what went wrong."""


def main(arguments: Sequence[str]) -> int:
    """Trains as told; an error is one line on stderr and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    parser.add_argument("--rate", type=float, action="append", required=True)
    parser.add_argument("--device")
    parser.add_argument(
        "--together", action="store_true", help="with the other processes that the job's launcher started"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    try:
        job = Job.read(given.job)
        if given.together:
            if sys.platform == "linux" and job.settings.launcher.kind == "torchrun":
                end_with_parent()
            with group(job.settings.launcher, device_kind(job)) as device:
                train_and_tell(job, given.rate, str(device))
        else:
            if given.device and given.device.startswith("cuda:"):
                torch.cuda.set_device(given.device)
            train_and_tell(job, given.rate, given.device)
    except MadError as error:
        sys.stderr.write(f"{ERROR}{error}\n")
        return 1
    except TryAgainError as error:
        sys.stderr.write(f"{ERROR}out of memory, once more with smaller parts: {error}\n")
        return TRY_AGAIN
    except Exception as error:  # the top of a command line
        log.exception("rank %d", rank())
        sys.stderr.write(f"{ERROR}{type(error).__name__}: {error}\n")
        return 1
    return 0


def train_and_tell(job: Job, rates: Sequence[float], device: str | None) -> None:
    """Trains; the first of several processes tells the one that started them how far it is."""
    files = {rate: ProgressFile(run_folder(job, rate)) for rate in rates}

    def tell(progress: Progress) -> None:
        if rank() == 0:
            files[progress.learning_rate].tell(progress)

    train_rates(job, rates, tell, device=device)


def device_kind(job: Job) -> str:
    """cpu or cuda: what processes that train together use."""
    return "cuda" if torch.cuda.is_available() and job.target.device != "cpu" else "cpu"


if __name__ == "__main__":
    # Threads that spin while they wait take the cores from the other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main(sys.argv[1:]))
