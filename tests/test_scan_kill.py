"""kill -9 at random moments of a scan, over and over: what it ends with equals an undisturbed scan byte by byte."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scan_pool import files_of, write_pool

COUNT, RUNS = 96, 20
SCANS = """
import os, sys
from pathlib import Path
from tests.scan_pool import scan_all

root = Path(sys.argv[1])
scan_all(root, root / "warm", block=16)  # whatever is imported or compiled late is there for all
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        scan_all(root, root / line.strip(), block=16)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Scans:
    """Starts scans as processes of their own, quickly: each is a fork of one that has everything imported."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCANS, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            text=True,
            bufsize=1,
        )

    def run(self, name: str, kill_after_s: float | None = None) -> int:
        """Exit status; -9 when it was killed in time."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{name}\n")
        child = int(self.process.stdout.readline())
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def scans(tmp_path: Path) -> Iterator[Scans]:
    write_pool(tmp_path, COUNT)
    opened = Scans(tmp_path)
    yield opened
    opened.close()


def test_twenty_scans_killed_at_random_moments_end_with_the_same_bytes(scans: Scans, tmp_path: Path) -> None:
    """Slow: a hundred scans. The moments are drawn from a fixed seed, over the time that a whole scan takes."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        assert scans.run("undisturbed") == 0
        times.append(time.perf_counter() - began)
        if len(times) < 3:
            subprocess.run(["rm", "-r", str(tmp_path / "undisturbed")], check=True)
    expected = files_of(tmp_path / "undisturbed")
    assert len([n for n in expected if n.startswith("scores")]) == 12
    draw, killed = random.Random(7), 0
    for run in range(RUNS):
        name = f"run-{run:02d}"
        for _ in range(4):
            try:
                killed += scans.run(name, draw.uniform(0, 1.1 * times[-1])) == -signal.SIGKILL
            except ProcessLookupError:  # it was faster
                scans.process.stdout.readline()  # type: ignore[union-attr]
        assert scans.run(name) == 0
        found = files_of(tmp_path / name)
        assert {n for n in found if not n.endswith(".tmp")} == set(expected)
        assert all(found[n] == content for n, content in expected.items()), name
    assert killed > RUNS
