"""In place of a web worker: it does nothing, or what its job says."""

import logging
import os
import signal
import time
from pathlib import Path

from mad_backend.errors import MadError
from mad_backend.serving.children import Ready, Tell

log = logging.getLogger(__name__)

WORK = "tests.serving.idle_worker:work"


def work(job: str, tell: Tell) -> None:
    """`job`: "" to idle, "refuse", "full" of memory, "deaf" to SIGTERM, or a file for its process id before it dies."""
    if job == "refuse":
        raise MadError("it is told to refuse")
    if job == "full":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    if job == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log.info("idle")
    tell(Ready())
    if job.startswith("/"):
        with Path(job).open("a") as file:
            file.write(f"{os.getpid()}\n")
        os._exit(3)
    while True:
        time.sleep(1)
