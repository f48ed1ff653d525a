"""Images side by side, in a process whose PyTorch has more than one thread."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROBE = """
import json, sys, threading, torch
from mad_backend.models.threads import side_by_side

torch.set_num_threads(int(sys.argv[1]))

def work(n):
    if n == 99:
        raise KeyError("ninety-nine")
    torch.ones(300, 300) @ torch.ones(300, 300)  # the first sum of a thread takes its number of threads
    return n, torch.get_num_threads(), threading.current_thread().name

found = {"before": torch.get_num_threads(), "many": side_by_side(work, range(12)), "one": side_by_side(work, [7])}
try:
    side_by_side(work, [1, 2, 99, 4, 5])
except KeyError as error:
    found["raised"] = str(error)
found["after"] = torch.get_num_threads()
print(json.dumps(found))
"""


@pytest.fixture(scope="module", params=[1, 2, 10])
def probe(request: pytest.FixtureRequest) -> tuple[int, dict[str, Any]]:
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, str(request.param)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return request.param, json.loads(answer.stdout)


def test_answers_come_in_order_each_by_a_share_of_the_threads(probe: tuple[int, dict[str, Any]]) -> None:
    threads, found = probe
    assert [n for n, _, _ in found["many"]] == list(range(12))
    assert {used for _, used, _ in found["many"]} == {1}
    assert len({name for _, _, name in found["many"]}) <= min(8, threads)


def test_a_single_one_has_all_threads_and_so_has_everybody_afterwards(
    probe: tuple[int, dict[str, Any]],
) -> None:
    threads, found = probe
    assert found["one"] == [[7, threads, "MainThread"]]
    assert found["before"] == found["after"] == threads


def test_what_one_raises_is_raised(probe: tuple[int, dict[str, Any]]) -> None:
    assert "ninety-nine" in probe[1]["raised"]
