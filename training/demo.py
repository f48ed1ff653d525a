"""The README's first command: one complete round on a private Label Studio, started and shown in one terminal."""

import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mad_backend.core.records import ProjectRole
from mad_backend.core.rounds import Round, RoundState
from mad_backend.errors import DemoError
from mad_backend.settings import Secrets
from sync.client import LabelStudioClient
from sync.embedded import EmbeddedLabelStudio
from sync.ml_backends import ensure_backend, served_at
from training.demo_ending import print_ending, print_logins, print_places
from training.oracles import SimulatedCrowd
from training.processes import last_line, start_mad, stop
from training.project import Project
from training.start import start_round
from training.steps import load_item
from training.templates import write_settings

RATERS = 3
ROLES = {
    RoundState.RATING: ProjectRole.RATING,
    RoundState.LABELLING: ProjectRole.SEGMENTATION,
    RoundState.CHECKING: ProjectRole.CHECK,
}
HOW_OFTEN = {
    ProjectRole.RATING: "Every task wants an answer by each of the three",
    ProjectRole.SEGMENTATION: "Every task wants an answer",
    ProjectRole.CHECK: "Every label map wants the eyes of somebody who did not draw it",
}
People = dict[str, tuple[str, LabelStudioClient]]
"""Email -> (password, client) of each rater."""


def passwords_of(people: People) -> dict[str, str]:
    """Email -> password."""
    return {email: password for email, (password, _) in people.items()}


class Demo:
    """Label Studio, `mad serve` and `mad schedule` as child processes, and people, simulated or at the browser.

    Everything lies under `workspace`; a second run goes on where the first one stopped, or starts the next round.
    """

    def __init__(
        self, workspace: Path, data: Path | None, label_studio: Path, console: Console, *, by_hand: bool
    ) -> None:
        self._root = (workspace / ("demo-data" if data else "demo")).resolve()
        self._data = data.resolve() if data else None
        self._server = EmbeddedLabelStudio(self._root / "label-studio", label_studio)
        self._console = console
        self._by_hand = by_hand
        self._children: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def run(self, *, stay: bool) -> None:
        """Runs the round to its end; raises a MadError that says what stopped it. Ctrl-C loses nothing."""
        started = time.monotonic()
        with ExitStack() as stack:
            stack.callback(self._stop_children)
            config = self._prepare()
            stack.enter_context(self._label_studio())
            people = self._people()
            project = Project.open(config)
            found = self._round(project)
            self._start_services(project)
            try:
                self._drive(project, found.number, people)
            except KeyboardInterrupt:
                self._say("stopping; nothing is lost, the next run goes on from here")
                raise
            self._finish(project, found.number, time.monotonic() - started, people)
            if stay:
                self._console.print(
                    "Everything keeps running until Ctrl-C; the next run starts the next round."
                )
                self._wait_for_interrupt()

    def _prepare(self) -> Path:
        """Data and settings file."""
        self._root.mkdir(parents=True, exist_ok=True)
        data, template = self._data, "experiment_a"
        if data is None:
            from training.scenes import DEMO_SEED, write_dataset

            template, data = "demo", self._root / "scenes"
            with self._bar() as bar:
                task = bar.add_task("drawing scenes", total=None)
                write_dataset(
                    data,
                    DEMO_SEED,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
        elif not data.is_dir():
            raise DemoError(
                f"there is no folder {data}; --data wants the folder with voc/, coco_voc/ and models/"
            )
        places = {"DATA": data, "WORKSPACE": self._root, "CACHE": self._root, "SEED": 0}
        services = f"serve: {{port: {self._port()}}}\n"
        if self._data:
            services += "schedule: {tick_s: 2, lease_s: 30}\n"
        return write_settings(template, self._root / "settings.yaml", places, services)

    def _port(self) -> int:
        """The ML backend's port: last run's if it is free, for Label Studio remembers the address."""
        memory = self._root / "port"
        wanted = int(memory.read_text(encoding="utf-8")) if memory.exists() else 0
        for port in (wanted, 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                found = int(probe.getsockname()[1])
            memory.write_text(str(found), encoding="utf-8")
            return found
        raise DemoError("no free port on 127.0.0.1 for the ML backend")

    @contextmanager
    def _label_studio(self) -> Iterator[None]:
        self._server.start(self._say)
        try:
            yield
        finally:
            self._server.stop()

    def _people(self) -> People:
        """Email -> (password, client) of the raters; made on the first run."""
        memory = self._root / "people.json"
        if not memory.exists():
            passwords = {f"rater{n + 1}@example.com": secrets.token_urlsafe(9) for n in range(RATERS)}
            memory.touch(mode=0o600)
            memory.write_text(json.dumps(passwords), encoding="utf-8")
        people = {}
        for email, password in json.loads(memory.read_text(encoding="utf-8")).items():
            client = self._server.client(self._server.create_user(email, password))
            client.submit_with_enter()
            people[email] = (password, client)
        return people

    def _round(self, project: Project) -> Round:
        """The round to go on with, or the next one."""
        latest = project.store.rounds.latest()
        if latest is None or latest.state.is_over:
            self._say("checking images and models")
            latest = start_round(project, self._server.client())
            self._say(f"round {latest.number} starts from {latest.target}")
            return latest
        if latest.came_from is not None:
            project.store.rounds.advance(latest.number, latest.state, latest.came_from, datetime.now(UTC))
        self._say(f"round {latest.number} goes on: {latest.came_from or latest.state}")
        return project.store.rounds.get(latest.number)

    def _start_services(self, project: Project) -> None:
        environment = {
            "MAD_LABEL_STUDIO_URL": self._server.url,
            "MAD_LABEL_STUDIO_TOKEN": self._server.token,
        }
        for name in ("serve", "schedule"):
            log_path = self._root / "logs" / f"{name}.log"
            child = start_mad([name, "--config", str(project.config)], log_path, environment)
            self._children[name] = (child, log_path)

    def _drive(self, project: Project, number: int, people: People) -> None:
        """Shows the round and lets people work, until it is over."""
        crowd = None
        if not self._by_hand:
            crowd = SimulatedCrowd(project, {email: client for email, (_, client) in people.items()})
        before: RoundState | None = None
        since, is_open = time.monotonic(), False
        with self._bar() as bar:
            task = bar.add_task("", total=None)
            while not (found := project.store.rounds.get(number)).state.is_over:
                self._check_children(found.state)
                if found.state is RoundState.FAILED:
                    raise DemoError(f"round {number} failed while {found.came_from}: {found.error}")
                if found.state is not before:
                    if before is not None:
                        bar.console.print(f"  {before} took {time.monotonic() - since:.0f} s")
                    before, since = found.state, time.monotonic()
                    is_open = False
                bar.update(
                    task,
                    description=f"round {number}: {found.state}" + (f", {found.note}" if found.note else ""),
                    completed=found.done,
                    total=found.total or None,
                )
                role = ROLES.get(found.state)
                if role and project.store.remote.tasks(number, role):
                    if not is_open:
                        self._open(project, number, role, people, bar.console)
                        is_open = True
                    if crowd is not None:
                        self._let_work(crowd, project, found, bar, task)
                time.sleep(0.5)

    def _open(
        self,
        project: Project,
        number: int,
        role: ProjectRole,
        people: People,
        console: Console,
    ) -> None:
        """All tasks are there: connects the ML backend, and tells a person at the browser where to go."""
        remote = project.store.remote.project(number, role)
        if remote is None:
            return
        if role is ProjectRole.SEGMENTATION:
            served = served_at(project.settings, Secrets(), f"http://127.0.0.1:{project.settings.serve.port}")
            ensure_backend(self._server.client(), remote.project_id, served, "MAD target")
        if self._by_hand:
            console.print(f"Your turn: {role}. {HOW_OFTEN[role]}; log in and open")
            console.print(f"  {self._server.url}/projects/{remote.project_id}/data?labeling=1")
            print_logins(console, self._server.url, passwords_of(people))

    def _let_work(
        self, crowd: SimulatedCrowd, project: Project, found: Round, bar: Progress, task: TaskID
    ) -> None:
        """Each of the crowd answers until there is nothing left for them."""
        role = ROLES[found.state]
        ended = threading.Event()

        def show() -> None:
            while not ended.wait(1.0):
                now = project.store.rounds.get(found.number)
                bar.update(
                    task, description=f"round {now.number}: {now.state}, {now.note}", completed=now.done
                )

        shower = threading.Thread(target=show, daemon=True)
        shower.start()
        key = project.target_key(project.target_of(found))
        try:
            with project.predictions.open(key) as pack:
                crowd.work(found.number, role, lambda i: load_item(project, pack, i)[1], ended.is_set)
        finally:
            ended.set()
            shower.join()

    def _finish(self, project: Project, number: int, seconds: float, people: People) -> None:
        print_ending(self._console, project, number, seconds)
        server = self._server
        print_places(self._console, project, number, server.url, server.admin, passwords_of(people))
        self._console.print(f"all files and logs: {self._root}", soft_wrap=True)

    def _check_children(self, state: str) -> None:
        for name, (child, log_path) in self._children.items():
            if child.poll() is not None:
                raise DemoError(f"`mad {name}` ended while {state}: {last_line(log_path)} (log: {log_path})")

    def _stop_children(self) -> None:
        for child, _ in self._children.values():
            stop(child)

    def _wait_for_interrupt(self) -> None:
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)
                self._check_children("running")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
