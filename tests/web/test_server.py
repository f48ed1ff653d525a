"""`mad serve` as it is run: web workers and the model in processes of their own, which come and go."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil
import pytest
import requests

from mad_backend.errors import MadError
from mad_backend.settings import Secrets, ServeSettings, Settings
from mad_backend.store.store import Store
from mad_backend.web.server import listen, serve
from tests.served_world import NOW, World, make_world
from tests.serving.watched_model import KIND
from tests.web.test_ml_backend import HEADERS, SECRET, SETUP, TOKEN, WEBHOOK, label_of, predict_body

ROOT = Path(__file__).parents[2]
OWN = {"scenes@0": "house", "scenes@1": "tree"}
STEMS = [*"01234", *(f"busy-{n}" for n in range(4)), "in a kill", "counted", "at the end"]
"""Of images; the pixels are the same where the length is, and what is known is not asked of the model again."""
SERVE = """
import logging, sys
from pathlib import Path
from mad_backend.settings import Secrets
from mad_backend.settings_file import load_settings
from mad_backend.web.server import serve
logging.basicConfig(level=logging.INFO, format="%(message)s")
serve(load_settings(Path(sys.argv[1])), Secrets())
"""


@dataclass
class Running:
    """The server of `world` at `address`; what it logs is in `lines`."""

    world: World
    process: "subprocess.Popen[str]"
    address: str = ""
    lines: list[str] = field(default_factory=list)

    def ask(self, count: int = 6) -> set[tuple[str, str | None]]:
        """(version, label) of the answers to `count` tasks."""
        body = predict_body([self.world.task(f"pool/{n % 5}", n) for n in range(count)])
        answer = requests.post(f"{self.address}/predict", json=body, headers=HEADERS, timeout=30)
        results = answer.json()["results"]
        assert len(results) == count
        return {(r["model_version"], label_of(r)) for r in results}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.address}/health", timeout=10).json()
        return found

    def processes(self, work: str = "") -> list[psutil.Process]:
        """Its children whose work has this in its name; those that have just ended have none."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if work in _last_argument(child)]

    def control(self, name: str) -> Path:
        return self.world.root / "control" / name

    def folders(self) -> list[Path]:
        """What the server has of folders for temporary files."""
        return list((self.world.root / "t").glob("mad-*"))


def _last_argument(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):  # zombies are of this kind, too
        return (process.cmdline() or [""])[-1]  # none between fork and exec
    return ""


def until(is_so: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to this in time"
        time.sleep(0.02)


@contextmanager
def running(world: World, settings: Settings) -> Iterator[Running]:
    """`serve` in a process of its own, on a free port; killed in the end if it has not ended by then."""
    (world.root / "control").mkdir(exist_ok=True)
    (world.root / "t").mkdir()
    path = world.root / "mad.yaml"
    path.write_text(settings.model_dump_json())
    environment = {
        **os.environ, "MAD_WEBHOOK_SECRET": SECRET, "PYTHONPATH": str(ROOT), "TMPDIR": str(world.root / "t"),
    }  # fmt: skip
    command = [sys.executable, "-c", SERVE, str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        found = Running(world, process)
        reader = Thread(target=read_on, args=(process.stderr, found.lines))
        reader.start()
        try:
            # On a machine where nobody has drawn yet, what draws is compiled first.
            until(lambda: told(found, "serving scenes on ") or process.poll() is not None, 90)
            assert process.poll() is None, found.lines
            found.address = told(found, "serving scenes on ")[0].removeprefix("serving scenes on ")
            yield found
        finally:
            process.kill()
            process.wait()
            reader.join(20)
    assert not any(SECRET in line or TOKEN in line for line in found.lines)


def read_on(stream: IO[str] | None, lines: list[str]) -> None:
    """All children have the same stream, so that it ends with the last of them."""
    assert stream is not None
    lines.extend(line.rstrip() for line in iter(stream.readline, ""))


def told(server: Running, begin: str) -> list[str]:
    return [line for line in list(server.lines) if line.startswith(begin)]


def served(world: World, **serve_settings: Any) -> Settings:
    target = world.with_target(kind=KIND)
    return target.model_copy(update={"serve": ServeSettings(port=0, **serve_settings)})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two web workers and a model that tests can hold up; in the end SIGTERM ends all, once a request is answered."""
    root = tmp_path_factory.mktemp("served")
    with closing(Store(f"sqlite:///{root}/mad.sqlite3")) as store:
        store.rounds.create(1, 7, NOW)
        world = make_world(root, store)
        world.push([world.add_image(stem) for stem in STEMS])
        with running(world, served(world, workers=2)) as found, ThreadPoolExecutor(1) as threads:
            yield found
            children = found.processes()
            assert len(children) == 3
            asked = threads.submit(ask_the_model, found, "at the end")
            until(found.control("waiting").exists)
            found.process.terminate()
            until(lambda: told(found, "stopping"))
            found.control("wait").unlink()
            assert asked.result() == "house"
            assert found.process.wait(10) == 0
            assert not any(child.is_running() for child in children)
            assert not found.folders()


def ask_the_model(server: Running, stem: str) -> str | None:
    """The label that it finds; it waits until the file `wait` is gone."""
    server.control("wait").touch()
    body = predict_body([server.world.task(f"pool/{stem}")])
    answer = requests.post(f"{server.address}/predict", json=body, headers=HEADERS, timeout=30)
    return label_of(answer.json()["results"][0])


def test_versions_are_swapped_and_rolled_back_while_requests_run(server: Running) -> None:
    versions = server.world.store.versions
    assert server.ask() == {("scenes@0", "house")}
    with ThreadPoolExecutor(4) as threads:
        asked: list[set[tuple[str, str | None]]] = []
        for version in ("scenes@1", "scenes@0"):
            versions.promote(version, NOW, "test")
            while server.status()["model_version"] != version:
                asked += threads.map(server.ask, [6] * 4)
            assert list(threads.map(server.ask, [6] * 4)) == [{(version, OWN[version])}] * 4
    assert all(len(seen) == 1 and seen <= set(OWN.items()) for seen in asked)
    until(lambda: len(server.processes("model_process")) == 1)
    assert told(server, "now serving")[1:] == [
        "now serving scenes@1, round 1",
        "now serving scenes@0, round 0",
    ]


def test_setup_and_webhook_are_answered_as_label_studio_expects(server: Running) -> None:
    world, address = server.world, server.address
    assert requests.post(f"{address}/setup", json=SETUP, timeout=20).json() == {"model_version": "scenes@0"}
    assert requests.post(f"{address}/webhook", json=WEBHOOK, timeout=20).status_code == 403
    assert not world.store.remote.take_pull_wish()
    sent = {"X-MAD-Secret": SECRET}
    assert requests.post(f"{address}/webhook", json=WEBHOOK, headers=sent, timeout=20).status_code == 200
    assert world.store.remote.take_pull_wish()


def test_health_is_told_at_once_while_the_model_is_busy(server: Running) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask_the_model, server, f"busy-{n}") for n in range(4)]
        until(server.control("waiting").exists)
        began = time.monotonic()
        for _ in range(10):
            assert server.status()["state"] == "ready"
        assert time.monotonic() - began < 1
        server.control("wait").unlink()
        assert [answer.result() for answer in asked] == ["house"] * 4


def test_a_request_is_answered_though_the_model_is_killed_meanwhile(server: Running) -> None:
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask_the_model, server, "in a kill")
        until(server.control("waiting").exists)
        [model] = server.processes("model_process")
        model.kill()
        server.control("wait").unlink()
        assert asked.result() == "house"
    assert told(server, "the process of scenes@0 is started again in 0 s, for it ended with status -9")


def test_a_web_worker_that_dies_is_started_again(server: Running) -> None:
    before = server.processes("web.worker")
    before[0].kill()
    until(lambda: len(server.processes("web.worker")) == 2 and not before[0].is_running())
    assert told(server, "a web worker is started again: it ended with status -9")
    assert server.ask() == {("scenes@0", "house")}


def test_what_all_processes_count_is_told_by_any_of_them(server: Running) -> None:
    def metrics() -> tuple[str, float]:
        text = requests.get(f"{server.address}/metrics", timeout=20).text
        [frames] = re.findall(r'mad_model_frames_total\{version="scenes@0"\} (\S+)', text)
        return text, float(frames)

    _, before = metrics()
    body = predict_body([server.world.task("pool/counted")])
    assert requests.post(f"{server.address}/predict", json=body, headers=HEADERS, timeout=30).ok
    text, after = metrics()
    assert after - before == 1
    assert 'mad_target_state{state="ready"} 1.0' in text


def test_the_first_promotion_is_served_without_a_restart_and_nothing_outlives_a_kill(world: World) -> None:
    empty = f"sqlite:///{world.root}/empty.sqlite3"
    settings = served(world).model_copy(update={"database": empty})
    body = predict_body([{"id": 1, "data": {"image": str(world.root / "images" / "0.png")}}])
    with running(world, settings) as server:
        status = server.status()
        assert (status["model_version"], status["state"]) == (None, "unpromoted")
        answer = requests.post(f"{server.address}/predict", json=body, timeout=20)
        assert answer.status_code == 503
        assert "no target version is promoted yet" in answer.json()["error"]
        with closing(Store(empty)) as store:
            store.versions.record("scenes@0", 0, None, NOW)
            store.versions.promote("scenes@0", NOW, "the first")
        until(lambda: server.status()["state"] == "ready")
        answer = requests.post(f"{server.address}/predict", json=body, timeout=20)
        assert answer.json()["results"][0]["model_version"] == "scenes@0"
        children = server.processes()
        assert len(children) == 2
        server.process.kill()
        _, alive = psutil.wait_procs(children, 5)
        assert not alive
        until(lambda: not server.folders())


def test_a_taken_port_is_named_with_what_to_do(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = world.settings.model_copy(update={"serve": ServeSettings(port=port)})
        with pytest.raises(
            MadError, match=rf"port {port} of 127\.0\.0\.1: .* in use.*; .* another serve\.port"
        ):
            serve(settings, Secrets())


def test_an_address_of_another_machine_is_refused_with_the_setting_to_check() -> None:
    with pytest.raises(MadError, match=r"port 0 of 192\.0\.2\.1: .* check serve\.host"):
        listen(ServeSettings(host="192.0.2.1", port=0))
