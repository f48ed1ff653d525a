"""The engine of a Ray cluster: two nodes, the loss of a process, of a node, of everything."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import psutil
import pytest

from mad_backend.engines.base import ChunkTask
from mad_backend.engines.local import LocalEngine
from mad_backend.engines.ray_engine import RayEngine
from mad_backend.errors import MissingRuntimeError, ScanError
from tests.engines.conftest import GRID, NODE, Pool, stable, until
from tests.engines.stand_ins import read


def scanned(engine: RayEngine, pool: Pool, happen: Callable[[], bool]) -> None:
    """Chunks of one image until `happen`, called after each, is true, and then twelve more; all results are right."""
    has_happened = False

    def tasks() -> Iterator[ChunkTask]:
        left = 12
        for number, task in enumerate(cycle(pool.tasks(1, chunk=1))):
            yield replace(task, number=number)
            left -= has_happened
            if not left:
                return

    with LocalEngine([pool.recipe("folder").load()], GRID, read) as measure:
        expected = stable(measure.run(pool.tasks(1, chunk=1)))
    for number, result in enumerate(engine.run(tasks())):
        assert stable([result]) == [replace(expected[number % len(expected)], number=number)]
        assert number < 500, "it has not happened"
        has_happened = has_happened or happen()


def test_both_nodes_work_and_killed_processes_are_replaced(cluster: Any, pool: Pool) -> None:
    killed = set()

    def kill() -> bool:
        if len({node for _, node in pool.trace()}) == 2:
            killed.update(pid for pid, _ in pool.trace())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        return bool(killed)

    with RayEngine([pool.recipe("Traced")], read, address=cluster.address) as engine:
        scanned(engine, pool, kill)
    assert {pid for pid, _ in pool.trace()} - killed


def test_a_lost_node_costs_nothing_but_time(cluster: Any, pool: Pool) -> None:
    third = cluster.add_node(**NODE)

    def lose() -> bool:
        if third.node_id not in {node for _, node in pool.trace()}:
            return False
        cluster.remove_node(third, allow_graceful=False)
        return True

    with RayEngine([pool.recipe("Traced")], read, address=cluster.address, actors=3) as engine:
        scanned(engine, pool, lose)


def test_a_chunk_that_ends_one_actor_after_another_is_named(cluster: Any, pool: Pool) -> None:
    with RayEngine([pool.recipe("Deadly")], read, address=cluster.address, actors=1) as engine:
        results = engine.run(pool.tasks(1))
        assert [next(results).number, next(results).number] == [0, 1]
        with pytest.raises(
            ScanError, match=r"chunk 2 \(first image d/008\) was lost with its Ray actor 3 times"
        ):
            next(results)


def test_a_fault_of_a_model_comes_with_its_traceback(cluster: Any, pool: Pool) -> None:
    told = r"(?s)a Ray actor failed:.*in predict.*ZeroDivisionError"
    with (
        RayEngine([pool.recipe("Faulty")], read, address=cluster.address, actors=1) as engine,
        pytest.raises(ScanError, match=told),
    ):
        list(engine.run(pool.tasks(1)))


def test_without_room_for_an_actor_the_scan_says_so_and_does_not_wait_for_ever(
    cluster: Any, pool: Pool
) -> None:
    recipes = [pool.recipe("folder")]
    with pytest.raises(
        ScanError, match=r"no node .* wants 1 CPU, 1 GPU; the nodes have 1 CPU, 0 GPU; 1 CPU, 0 GPU"
    ):
        RayEngine(recipes, read, address=cluster.address, gpus_per_actor=1)
    with pytest.raises(
        ScanError, match=r"has started in 1 s: each wants 2 CPU, 0 GPU; the cluster has 2 CPU, 0 GPU"
    ):
        RayEngine(recipes, read, address=cluster.address, actors=1, cpus_per_actor=2, start_timeout_s=1)


def test_the_connection_of_others_in_this_process_stays(cluster: Any, pool: Pool) -> None:
    import ray

    ray.init(cluster.address, log_to_driver=False)
    with RayEngine([pool.recipe("folder")], read, actors=1) as engine:
        assert len(list(engine.run(pool.tasks(1)))) == 6
    assert ray.is_initialized()
    until(lambda: ray.available_resources().get("CPU") == 2)
    ray.shutdown()


OWN = """
from pathlib import Path
from mad_backend.core.records import PoolImage
from mad_backend.engines.ray_engine import RayEngine
from tests.engines.conftest import Pool
from tests.engines.stand_ins import read

root = Path("{root}")
pool = Pool(root, tuple(PoolImage(f"d/{{n:03d}}", str(root / f"photos/d/{{n:03d}}.png")) for n in range(24)))
with RayEngine([pool.recipe("folder")], read, actors=1) as engine:
    print(sum(len(result.maps[0]) for result in engine.run(pool.tasks(1))), flush=True)
    input()
"""


def test_without_an_address_ray_runs_on_loopback_and_ends_with_the_engine(cluster: Any, pool: Pool) -> None:
    environment = dict(os.environ)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        environment.pop(name)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", OWN.format(root=pool.root)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "22\n"
        started = psutil.Process(process.pid).children(recursive=True)
        ends = {
            c.laddr.ip for p in started for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN
        }
        assert process.communicate("\n", timeout=60) == ("", "")
    assert len(started) > 3
    assert ends <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert psutil.wait_procs(started, timeout=60)[1] == []


def test_a_cluster_that_does_not_answer_is_named_at_once(pool: Pool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ScanError, match=f"no Ray cluster answers at {address}"):
        RayEngine([pool.recipe("folder")], read, address=address)


def test_without_ray_the_extra_to_install_is_named(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingRuntimeError, match=r"pip install 'mad-segmentation\[ray\]'"):
        RayEngine([pool.recipe("folder")], read)
