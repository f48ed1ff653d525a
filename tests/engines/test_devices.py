"""The engine of several devices: processes that die, and whose parent dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mad_backend.engines.devices import DeviceEngine
from mad_backend.errors import ScanError
from tests.engines.conftest import Pool, until
from tests.engines.stand_ins import read

PARENT = """
from pathlib import Path
from mad_backend.core.records import PoolImage
from mad_backend.engines.devices import DeviceEngine
from tests.engines.conftest import Pool
from tests.engines.stand_ins import read

if __name__ == "__main__":
    root = Path("{root}")
    images = [PoolImage(f"d/{{n:03d}}", str(root / f"photos/d/{{n:03d}}.png")) for n in range(24)] * 10
    pool = Pool(root, tuple(images))
    with DeviceEngine([pool.recipe("Traced")], ["cpu"], read) as engine:
        for result in engine.run(pool.tasks(1)):
            pass
"""


@pytest.fixture
def parent(pool: Pool, tmp_path: Path) -> "subprocess.Popen[str]":
    """A process that scans on a device, at work."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(root=pool.root))
    process = subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until(lambda: bool(pool.trace()))
    return process


def test_a_killed_process_is_named_with_its_device_and_status(pool: Pool) -> None:
    with DeviceEngine([pool.recipe("Traced")], ["cpu"], read) as engine:
        results = engine.run(pool.tasks(1, chunk=1))
        next(results)
        os.kill(pool.trace()[0][0], signal.SIGKILL)
        with pytest.raises(ScanError, match=r"process on cpu ended with status -9"):
            list(results)


def test_a_process_that_dies_of_a_chunk_is_noticed(pool: Pool) -> None:
    with DeviceEngine([pool.recipe("Deadly")], ["cpu"], read) as engine:
        results = engine.run(pool.tasks(1, chunk=1) * 50)
        with pytest.raises(ScanError, match=r"ended with status -9"):
            list(results)


def test_a_fault_of_a_model_comes_with_its_traceback(pool: Pool) -> None:
    told = r"(?s)process on cpu failed:.*in predict.*ZeroDivisionError"
    with DeviceEngine([pool.recipe("Faulty")], ["cpu"], read) as engine, pytest.raises(ScanError, match=told):
        list(engine.run(pool.tasks(1)))


def test_processes_end_with_a_parent_that_is_killed(pool: Pool, parent: "subprocess.Popen[str]") -> None:
    workers = [psutil.Process(pid) for pid in {pid for pid, _ in pool.trace()}]
    parent.kill()
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert parent.communicate()[1] == ""


def test_ctrl_c_ends_all_processes_and_is_told_once(pool: Pool, parent: "subprocess.Popen[str]") -> None:
    workers = [psutil.Process(pid) for pid in {pid for pid, _ in pool.trace()}]
    os.killpg(parent.pid, signal.SIGINT)
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert parent.communicate(timeout=10)[1].count("KeyboardInterrupt") == 1
