"""What the demo prints at the end: Table 1, what became of the round, what is served, addresses and logins."""

import http.client
import json
import time
from collections.abc import Mapping

from rich.console import Console

from mad_backend.core.records import ProjectRole, Verdict
from mad_backend.errors import DemoError
from mad_backend.settings import Secrets
from sync.ml_backends import credentials
from training.project import Project
from training.report import build_report
from training.report_text import change_lines, table_1

LOADING_S = 120.0
"""For the promoted version to be loaded."""


def print_ending(console: Console, project: Project, number: int, seconds: float) -> None:
    """Round `number`, over after `seconds`: its report, its outcome, and what the ML backend serves since.

    Raises DemoError if the ML backend does not answer.
    """
    report = build_report(project)
    console.print()
    console.print(table_1(report))
    for line in change_lines(report):
        console.print(line)
    found = project.store.rounds.get(number)
    console.print(
        f"round {number} {found.state} after {seconds / 60:.1f} minutes: {found.outcome or ''}",
        soft_wrap=True,
    )
    checks = project.store.checks.all(number)
    if checks:
        corrected = sum(check.verdict is Verdict.CORRECTED for check in checks)
        console.print(f"the cross-check corrected {corrected} of {len(checks)} label maps")
    console.print(f"the ML backend serves {_served(project)}")
    unreadable = project.store.choices.unreadable()
    if unreadable:
        console.print(f"{len(unreadable)} images could not be read, e.g. {next(iter(unreadable.values()))}")
    console.print()


def print_places(
    console: Console,
    project: Project,
    number: int,
    url: str,
    admin: tuple[str, str],
    logins: Mapping[str, str],
) -> None:
    """Where to look: Label Studio at `url` with its admin (email, password), projects, people, the ML backend."""
    email, password = admin
    console.print(
        f"Label Studio: {url}   login {email}   password {password}", highlight=False, soft_wrap=True
    )
    for role in ProjectRole:
        remote = project.store.remote.project(number, role)
        if remote:
            console.print(f"  {role} project: {url}/projects/{remote.project_id}/data")
    print_logins(console, url, logins)
    console.print(f"ML backend: http://127.0.0.1:{project.settings.serve.port}/versions")


def print_logins(console: Console, url: str, logins: Mapping[str, str]) -> None:
    """A line for each of `logins`: email -> password at Label Studio's `url`."""
    for email, password in logins.items():
        console.print(f"  {url}   login {email}   password {password}", highlight=False, soft_wrap=True)


def _served(project: Project) -> str:
    """The version the ML backend names, once that is the promoted one: it goes on with the old one meanwhile."""
    promoted = project.store.versions.promoted()
    until = time.monotonic() + LOADING_S
    while True:
        named = _named(project)
        if promoted is None or named == promoted.version or time.monotonic() > until:
            return named
        time.sleep(0.5)


def _named(project: Project) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", project.settings.serve.port, timeout=30)
    try:
        connection.request("GET", "/health", headers=credentials(project.settings, Secrets()))
        return str(json.loads(connection.getresponse().read())["model_version"])
    except (OSError, ValueError, KeyError) as error:
        raise DemoError(
            f"the ML backend does not answer: {error}; see {project.settings.workspace}/logs/serve.log"
        ) from error
    finally:
        connection.close()
