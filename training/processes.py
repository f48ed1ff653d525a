"""Child processes that end with us and whose output is kept in a file."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1


def start_mad(
    arguments: Sequence[str], log_path: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts `mad <arguments>` with this interpreter, as `start`."""
    return start([sys.executable, "-m", "training.cli", *arguments], log_path, environment)


def start(
    command: Sequence[str], log_path: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts `command`; output is appended to `log_path`. Raises FileNotFoundError for a program that is not here.

    `environment` is added to our own.

    On Linux the child is killed when the thread that started it ends, kill -9 of our own process included, so that
    no second worker ever runs beside the one that takes over.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one C call
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends exactly this process: asked first, killed if it does not listen."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_line(log_path: Path) -> str:
    """The last line that says anything: what a failed child printed as its error."""
    lines = [line.strip() for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")


def end_with_parent() -> None:
    """Has the kernel kill this process, on Linux, when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
