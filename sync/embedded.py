"""A private Label Studio for the demo and the tests: started, given users, stopped.

It listens on 127.0.0.1 only, keeps everything under one folder, and calls nobody outside this machine.
"""

import ctypes
import fcntl
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import requests

from mad_backend.errors import DemoError, LabelStudioError
from sync.client import LabelStudioClient
from sync.embedded_start import HOST, Credentials, load_credentials, server_environment

log = logging.getLogger(__name__)

_START_TIMEOUT_S: Final = 420.0
"""A first start migrates an empty database: 40 to 80 s on two cores, more on a busy machine."""
_STOP_TIMEOUT_S: Final = 20.0
_TAIL_LINES: Final = 25
_PR_SET_PDEATHSIG: Final = 1

Report = Callable[[str], None]


def _silent(_text: str) -> None:
    """No progress shown."""


class EmbeddedLabelStudio:
    """A Label Studio process of our own; `executable` is `label-studio` in its own virtual environment.

    Database, users, password, token and (if free) port under `root` are used again by the next start. The
    server dies with the thread that started it (Linux), so start it from one that lives as long as it shall.
    `environment` replaces variables that the server is given. Raises DemoError.
    """

    def __init__(
        self,
        root: Path,
        executable: Path,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._root = root.resolve()
        # Not resolve(): the executable of a virtual environment may be a link.
        self._executable = executable.absolute()
        self._wanted_port = port
        self._overrides = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._known: Credentials | None = None

    def __repr__(self) -> str:
        return f"EmbeddedLabelStudio({str(self._root)!r})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _credentials(self) -> Credentials:
        if self._known is None:
            raise DemoError("the private Label Studio has no address and no token before it is started")
        return self._known

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._credentials.port}"

    @property
    def token(self) -> str:
        """The admin's legacy token."""
        return self._credentials.token

    @property
    def admin(self) -> tuple[str, str]:
        """(email, password) to log in with."""
        return self._credentials.email, self._credentials.password

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    @property
    def log_path(self) -> Path:
        return self._root / "label-studio.log"

    def start(self, report: Report = _silent) -> None:
        """Returns once the server answers, on a first start after a minute; `report` gets lines meanwhile."""
        if not self._executable.is_file():
            raise DemoError(
                f"there is no Label Studio at {self._executable}; install label-studio==1.23.2 into a "
                "virtual environment of its own and name its bin/label-studio"
            )
        self._root.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            known = self._known = load_credentials(self._root, self._wanted_port)
            with self.log_path.open("wb") as output:
                self._process = subprocess.Popen(
                    [
                        self._executable,
                        "start",
                        "--no-browser",
                        "--internal-host",
                        HOST,
                        "--port",
                        str(known.port),
                    ],
                    cwd=self._root,
                    env=server_environment(self._root, known, self._overrides),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_death_wish(),  # noqa: PLW1509 - one system call, which threads do not harm
                )
            self._wait(report)
        except BaseException:
            self.stop()
            raise
        log.info("Label Studio runs at %s, process %s", self.url, self.pid)

    def stop(self) -> None:
        """Ends exactly the process that `start` started; safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def client(self, token: str | None = None) -> LabelStudioClient:
        """A client for the admin, or for the user whose `token` is given."""
        return LabelStudioClient(self.url, token or self.token)

    def create_user(self, email: str, password: str) -> str:
        """Signs a user up (or in, if they exist) and returns their token."""
        with requests.Session() as browser:
            if not self._submit(browser, "signup", email, password) and not self._submit(
                browser, "login", email, password
            ):
                raise DemoError(
                    f"user {email} could be neither made nor logged in; exists with another password?"
                )
            answer = browser.get(f"{self.url}/api/current-user/token", timeout=30)
        if answer.status_code != 200:
            raise DemoError(f"user {email}: asking for the token was answered with {answer.status_code}")
        return str(answer.json()["token"])

    def _submit(self, browser: requests.Session, form: str, email: str, password: str) -> bool:
        """Fills in the sign-up or login page; True if the server then sends us on to the application."""
        page = f"{self.url}/user/{form}/"
        browser.get(page, timeout=30)
        fields = {
            "csrfmiddlewaretoken": browser.cookies.get("csrftoken", ""),
            "email": email,
            "password": password,
            "allow_newsletters": "false",
        }
        answer = browser.post(page, data=fields, headers={"Referer": page}, timeout=30, allow_redirects=False)
        return answer.status_code == 302

    def _take_lock(self) -> None:
        """Two servers on one SQLite file would both be slow and one would be on an unexpected port."""
        lock = (self._root / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise DemoError(
                f"a Label Studio already runs on {self._root}; stop it, or use another folder"
            ) from None
        self._lock = lock

    def _wait(self, report: Report) -> None:
        began = said = time.monotonic()
        report("starting Label Studio (the first start takes a minute or more)")
        while not self._is_up():
            now = time.monotonic()
            if self._process is not None and self._process.poll() is not None:
                raise DemoError(
                    f"Label Studio ended with status {self._process.returncode}\n{self._log_tail()}"
                )
            if now - began > _START_TIMEOUT_S:
                raise DemoError(
                    f"Label Studio did not answer within {_START_TIMEOUT_S:.0f} s\n{self._log_tail()}"
                )
            if now - said >= 10:
                said = now
                report(f"Label Studio is still starting, {now - began:.0f} s")
            time.sleep(0.25)
        try:
            self.client().current_user()
        except LabelStudioError as error:
            raise DemoError(
                f"something at {self.url} answers but does not know our token ({error}); another Label "
                "Studio may have "
                f"taken the port, or the database in {self._root} is not the one the credentials belong to"
            ) from error

    def _is_up(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return self._credentials.hidden_in("\n".join([f"the end of {self.log_path}:", *lines]))


def _death_wish() -> Callable[[], object] | None:
    """What the child calls before exec, so that the kernel ends it when its parent is gone, kill -9 included.

    The library is loaded here, before the fork, since loading takes a lock that another thread may hold.
    """
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, int(signal.SIGTERM))
