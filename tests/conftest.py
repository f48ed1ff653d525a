"""Fixtures of all tests: a store, and one real Label Studio for the whole session."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.embedded import EmbeddedLabelStudio

EXECUTABLE = Path(__file__).parents[1] / ".venv-label-studio" / "bin" / "label-studio"
PASSWORD = "Rater-pass-1"
# readline, which pytest imports, tells the processes it starts how wide no terminal is: tests choose for themselves.
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)
# A shell's `make test &` has SIGINT ignored, and so would every process whose Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IS_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ
RATERS = ("ann@example.com", "bob@example.com", "cat@example.com", "dan@example.com")


def local_files(root: Path) -> dict[str, str]:
    """What lets a server give the files below `root`/files (media: local-files)."""
    (root / "files").mkdir(exist_ok=True)
    return {
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(root / "files"),
    }


@dataclass(frozen=True)
class RunningLabelStudio:
    """The server, a client for the admin, and one for each of `RATERS`, in that order."""

    server: EmbeddedLabelStudio
    admin: LabelStudioClient
    raters: tuple[LabelStudioClient, ...]
    emails: tuple[str, ...]
    tokens: tuple[str, ...]
    password: str


@pytest.fixture(scope="session")
def label_studio_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's server keeps its database and its files."""
    if not EXECUTABLE.exists():
        reason = f"needs Label Studio at {EXECUTABLE}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("label-studio")
    # The folder of a stopped server, for developers: its database need not be made again, which takes a minute.
    if template := os.environ.get("MAD_TEST_LABEL_STUDIO"):
        shutil.copytree(template, root, dirs_exist_ok=True)
    return root


def copy_database(root: Path, other: Path) -> None:
    """The database of the server at `root`, which may run meanwhile, and its credentials, for one at `other`."""
    (other / "data").mkdir(parents=True)
    shutil.copy(root / "credentials.json", other)
    name = "data/label_studio.sqlite3"
    with closing(sqlite3.connect(root / name)) as source, closing(sqlite3.connect(other / name)) as copy:
        source.backup(copy)


class _Starting:
    """A server on its way; a start on an empty database takes a minute. It ends with its thread, if not before."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._running: Future[RunningLabelStudio] = Future()
        self._is_over = Event()
        self._thread = Thread(target=self._run, name="Label Studio of the tests")
        self._thread.start()

    def running(self) -> RunningLabelStudio:
        return self._running.result()

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with EmbeddedLabelStudio(self._root, EXECUTABLE, environment=local_files(self._root)) as server:
                copy_database(self._root, self._root / "as-new")
                tokens = tuple(server.create_user(email, PASSWORD) for email in RATERS)
                clients = tuple(server.client(token) for token in tokens)
                self._running.set_result(
                    RunningLabelStudio(server, server.client(), clients, RATERS, tokens, PASSWORD)
                )
                self._is_over.wait()
        except Exception as error:
            if self._running.done():
                raise
            self._running.set_exception(error)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what takes long to make (a server, models, a finished project) run in one process."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))


def asks_the_server(item: pytest.Item) -> bool:
    return "label_studio" in getattr(item, "fixturenames", ())


def group_of(item: pytest.Item) -> str:
    """What may run beside something else: everything that asks the server is one group, the rest goes by folders."""
    if asks_the_server(item):
        return "server"
    parts = item.path.relative_to(Path(__file__).parent).parts
    return parts[0] if len(parts) > 1 else "tests"


@pytest.fixture(scope="session", autouse=True)
def label_studio_early(request: pytest.FixtureRequest) -> None:
    """Starts the server with the first test, if any test will want it, so that it is up when they do."""
    if not IS_ONE_OF_SEVERAL and EXECUTABLE.exists() and any(map(asks_the_server, request.session.items)):
        request.getfixturevalue("label_studio_starting")


@pytest.fixture(autouse=True)
def label_studio_early_here(request: pytest.FixtureRequest) -> None:
    """The same in one of several processes, which does not know that it will get these tests until it has one."""
    if IS_ONE_OF_SEVERAL and EXECUTABLE.exists() and asks_the_server(request.node):
        request.getfixturevalue("label_studio_starting")


@pytest.fixture(scope="session")
def label_studio_starting(label_studio_folder: Path) -> Iterator[_Starting]:
    starting = _Starting(label_studio_folder)
    yield starting
    starting.end()


@pytest.fixture(scope="session")
def label_studio(label_studio_starting: _Starting) -> RunningLabelStudio:
    """A Label Studio of this session's own."""
    return label_studio_starting.running()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An SQLite store with round 1 in it."""
    opened = Store(f"sqlite:///{tmp_path}/mad.sqlite3")
    opened.rounds.create(1, 7, datetime(2026, 1, 1, tzinfo=UTC))
    yield opened
    opened.close()
