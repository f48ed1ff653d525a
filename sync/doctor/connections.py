"""Checks of the projects that ask `mad serve`: that they reach it, what annotators start from, their webhook."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mad_backend.label_studio.webhook import SECRET_HEADER
from sync.client import Json
from sync.doctor.findings import Finding, not_checked, ok, warning, wrong
from sync.doctor.situation import Situation
from sync.doctor.visits import UnreachableError
from sync.ml_backends import CONNECTED, TITLE, Backend, backends
from sync.webhooks import webhook_address, webhooks

_NEWEST: Final = 200
"""Projects that are looked at, since Label Studio tells backends of one project at a time."""
_FIELDS: Final = "id,title,model_version,show_collab_predictions"


@dataclass(frozen=True)
class _Connected:
    """A project and our backend of it; `is_first`: Label Studio asks it, and not another one, for predictions."""

    project: Json
    backend: Backend
    is_first: bool

    @property
    def name(self) -> str:
        return f'project {self.project["id"]} "{self.project["title"]}"'

    @property
    def again(self) -> str:
        """What puts a connection right."""
        interactive = " --interactive" if self.backend.is_interactive else ""
        return (
            f'mad connect --project {self.project["id"]} --title "{self.backend.title}" --url {self.backend.url}'
            f"{interactive}"
        )


def connections(at: Situation) -> Iterator[Finding]:
    """Every project that asks `mad serve` for predictions gets them, and annotators see them."""
    listed = at.client.pages("/api/projects/", "listing the projects", {"include": _FIELDS}, "results")
    newest = sorted(listed, key=lambda p: int(p["id"]), reverse=True)[:_NEWEST]
    found = [one for project in newest for one in _connected(at, project)]
    if not found:
        yield not_checked("no project is connected to `mad serve`; connect one: mad connect --project <id>")
    for one in found:
        yield from _look(at, one)


def _connected(at: Situation, project: Json) -> list[_Connected]:
    """By address, by title, or by a version that only we have."""
    there = backends(at.client, project["id"])
    versions = {version.version for version in at.store.versions.all()}
    return [
        _Connected(project, backend, backend is there[0])
        for backend in there
        if backend.title == TITLE or backend.model_version in versions or _is_known(at, backend)
    ]


def _is_known(at: Situation, backend: Backend) -> bool:
    """At an address of `mad serve` that settings name; a title is anybody's."""
    return any(backend.is_at(address) for address in (at.serve_url, at.local_url) if address)


def _look(at: Situation, one: _Connected) -> Iterator[Finding]:
    if one.backend.state != CONNECTED:
        yield _lost(at, one)
        return
    trouble = [*_start(one), *_webhook(at, one)]
    yield from trouble or [ok(f"{one.name}: {_role(one)}, version {one.backend.model_version or 'none yet'}")]


def _role(one: _Connected) -> str:
    if one.project["model_version"] == one.backend.title:
        return f'annotators start from "{one.backend.title}"'
    return f'"{one.backend.title}" answers clicks and "Retrieve predictions" only'


def _lost(at: Situation, one: _Connected) -> Finding:
    """Label Studio did not get an answer a moment ago: is it the network, the password, or `mad serve`?"""
    url, is_known = one.backend.url, _is_known(at, one.backend)
    try:
        status = at.visitor.post(f"{url}/setup", {}, at.credentials if is_known else {}).status
    except UnreachableError as error:
        told = str(error).partition(";")[0]
        return wrong(
            f"{one.name}: nothing answers at {url} ({told}), so its tasks open empty",
            f"start `mad serve`, or correct the address: {one.again.partition(' --url')[0]} --url ...",
        )
    if status == 401 and is_known:
        return wrong(
            f"{one.name}: `mad serve` at {url} refuses our user and password, so its tasks open empty",
            f"export the same MAD_SERVE_PASSWORD for `mad serve` and here, then {one.again}",
        )
    if status not in (200, 401):
        return wrong(f"{one.name}: {url} answers {status} to /setup", "look at the log of `mad serve`")
    if (status == 401 or at.credentials) and not one.backend.has_password:
        return wrong(
            f"{one.name}: Label Studio has no password for `mad serve` at {url}, so its tasks open empty",
            one.again,
        )
    or_else = ", or has an old password" if one.backend.has_password else ""
    return wrong(
        f"{one.name}: Label Studio does not reach {url}, although this machine does{or_else}; its tasks open empty",
        f"{one.again}; where that fails, give another --url, or let the firewall of Label Studio's machine through",
    )


def _start(one: _Connected) -> Iterator[Finding]:
    version, title = one.project["model_version"] or "", one.backend.title
    is_live = version == title
    if is_live and not one.is_first:
        yield wrong(
            f'{one.name}: Label Studio asks another backend of the project, not "{title}"',
            "delete the other one under Settings > Model",
        )
    if is_live and not one.project["show_collab_predictions"]:
        yield wrong(f"{one.name}: annotators get an empty canvas, since prelabeling is off", one.again)
    if not version:
        yield wrong(
            f'{one.name}: annotators get an empty canvas, since model_version is empty and not "{title}"',
            f"{one.again} --replace",
        )


def _webhook(at: Situation, one: _Connected) -> Iterator[Finding]:
    secret = at.secrets.webhook_secret
    if secret is None:
        return
    address = webhook_address(one.backend.url)
    for hook in webhooks(at.client, one.project["id"]):
        if hook["url"] == address and (hook["headers"] or {}).get(SECRET_HEADER) != secret.get_secret_value():
            yield warning(
                f"{one.name}: its webhook to {address} lacks our secret, so `mad serve` refuses what it tells",
                one.again,
            )
