"""The README's first command, as a user runs it: interrupted once by Ctrl-C, then to the end."""

import http.client
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import RunningLabelStudio

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 900


def start_demo(workspace: Path, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "training.cli", "demo", "--exit", "--workspace", str(workspace)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1"},
        )


def predicted_images(workspace: Path) -> int:
    database = workspace / "demo" / "mad.sqlite3"
    if not database.exists():
        return 0
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        try:
            row = connection.execute("SELECT state, done FROM rounds").fetchone()
        except sqlite3.OperationalError:
            return 0  # the tables are not there yet
    return row[1] if row and row[0] == "predicting" else 0


def test_demo_interrupted_in_the_scan_goes_on_and_closes_a_round_that_gains_on_t1(
    tmp_path: Path, label_studio: RunningLabelStudio
) -> None:
    """Slow (minutes) because it is the product's main job from the first scene to the served version."""
    # The first start of Label Studio makes an empty database; that of these tests has done so before.
    as_new = label_studio.server.log_path.parent / "as-new"
    shutil.copytree(as_new, tmp_path / "demo" / "label-studio")
    log = tmp_path / "demo.log"
    first = start_demo(tmp_path, log)
    until = time.monotonic() + TIMEOUT_S
    while predicted_images(tmp_path) == 0 and first.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    assert first.poll() is None, log.read_text()
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130, log.read_text()
    assert "nothing is lost" in log.read_text()

    second = start_demo(tmp_path, log)
    assert second.wait(TIMEOUT_S) == 0, log.read_text()
    printed = log.read_text()
    assert "round 1 goes on" in printed
    assert "Table 1" in printed
    assert "the ML backend serves scenes@1" in printed
    gain = re.search(r"scenes@1 - scenes@0 on T\(1\): ([+-][\d.]+) points", printed)
    assert gain, printed
    assert float(gain[1]) > 0
    for address in re.findall(r"http://127\.0\.0\.1:(\d+)", printed):
        connection = http.client.HTTPConnection("127.0.0.1", int(address), timeout=5)
        with pytest.raises(OSError, match="refused"):
            connection.connect()
