"""Processes that train for this one: started, listened to, and ended when they fail or make no progress."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mad_backend.errors import TrainingError
from training.finetuning.progress import INTERVAL_S, Meter, Progress, ProgressFile, duration
from training.finetuning.results import read_result
from training.finetuning.worker import ERROR
from training.processes import last_line, start, stop


@dataclass(frozen=True)
class Start:
    """A process to be: its output is appended to `log`; `runs` are folders by learning rate."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    runs: Mapping[float, Path]

    @property
    def name(self) -> str:
        return f"fine-tuning at {', '.join(f'{rate:g}' for rate in self.runs)}"


def look_after(starts: Sequence[Start], devices: Sequence[str | None], stall_s: float, meter: Meter) -> None:
    """Runs all, one at a time on each device, until the last has ended.

    Raises TrainingError with the error of the first that fails, or that makes no progress for `stall_s`; the others are
    ended then, and go on from their last finished epoch next time.
    """
    waiting, free = deque(starts), deque(devices)
    running: list[Child] = []
    try:
        while waiting or running:
            while waiting and free:
                running.append(Child(waiting.popleft(), free.popleft(), stall_s))
            time.sleep(INTERVAL_S)
            for child in list(running):
                if child.is_over(meter):
                    running.remove(child)
                    free.append(child.device)
    finally:
        for child in running:
            stop(child.process)


class Child:
    """One of them, on `device`."""

    def __init__(self, given: Start, device: str | None, stall_s: float) -> None:
        self._given = given
        self.device = device
        self._stall_s = stall_s
        self._files = {rate: ProgressFile(folder) for rate, folder in given.runs.items()}
        self._seen: dict[float, Progress] = {}
        self._last: Progress | None = None
        self._moved = time.monotonic()
        self._told = given.log.stat().st_size if given.log.exists() else 0
        own = [f"--device={device}"] if device else []
        # A process for the CPU must not take room on a GPU, which mmengine would choose.
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        try:
            self.process = start([*given.command, *own], given.log, {**given.environment, **hidden})
        except FileNotFoundError as error:
            raise TrainingError(
                f"training.launcher: {error.filename} is not on this machine; install it, or choose another kind"
            ) from error

    def is_over(self, meter: Meter) -> bool:
        """Passes on how far it is; raises TrainingError when it failed or stands still."""
        status = self.process.poll()
        for rate, file in self._files.items():
            seen = file.read()
            if seen is not None and seen != self._seen.get(rate):
                self._seen[rate], self._last, self._moved = seen, seen, time.monotonic()
                meter(seen)
            if read_result(self._given.runs[rate], rate) is not None:
                meter.finish(rate)
        if status is None:
            self._check_progress()
            return False
        if status:
            raise TrainingError(
                f"{self._where} ended with status {status}: {self._error()}; all it said: {self._given.log}"
            )
        return True

    def _check_progress(self) -> None:
        if time.monotonic() - self._moved > self._stall_s:
            stop(self.process)
            last = f"the last was {self._last}" if self._last else "not even a first step"
            raise TrainingError(
                f"{self._where} has made no progress for {duration(self._stall_s)} ({last}) and was ended; started "
                f"again it goes on from its last finished epoch. All it said: {self._given.log}. Raise "
                "training.launcher.stall_s if a step or measuring an epoch can take longer"
            )

    @property
    def _where(self) -> str:
        return f"{self._given.name} on {self.device}" if self.device else self._given.name

    def _error(self) -> str:
        """What the first of its processes to fail said; the others only say that it is gone."""
        with self._given.log.open("rb") as file:
            file.seek(self._told)
            said = file.read().decode(errors="replace").splitlines()
        return next(
            (line.removeprefix(ERROR) for line in said if line.startswith(ERROR)), last_line(self._given.log)
        )
