"""`mad serve` as an ML backend of Label Studio projects: connected, found again, taken away.

What makes a connection live was read in Label Studio 1.23.2. `Project.model_version` holds either the version of stored
predictions or the *title* of a connected backend, never the version that the backend names: only where
`project.ml_backend_in_model_version` finds a backend of that title does `Task.get_predictions_for_prelabeling` ask it,
and then it gives the predictions of the version that /setup names (`MLBackend.predict_tasks`: made now, or stored under
that name). Were `model_version` set to our own version, the first promotion would leave every new task with an empty
canvas. Three more things follow:

- `show_collab_predictions` must be true; a PATCH that makes it false empties `model_version` too.
- `evaluate_predictions` asks the first backend of the project, whatever the title says: a second one is never asked.
- While the backend does not answer, tasks open empty, stored predictions of older versions notwithstanding.
"""

import base64
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, assert_never
from urllib.parse import urlsplit

from pydantic import SecretStr

from mad_backend.errors import LabelStudioError, SettingsError
from mad_backend.settings import Secrets, Settings
from sync.client import Json, LabelStudioClient

TITLE: Final = "MAD"
CONNECTED: Final = "CO"
"""Label Studio's word for a backend whose /health and /setup answered a moment ago."""
_UNAUTHORIZED: Final = "401 Client Error"


class Trouble(StrEnum):
    """Why Label Studio does not take a backend, and the words of its answer that say so."""

    BLOCKED = "reserved network address"
    UNKNOWN_HOST = "resolve hostname"
    REFUSED = "authentication parameters"
    UNHEARD = "health check failed"
    STRANGE = "look like a valid ML backend"


class BackendError(LabelStudioError):
    """Raised when Label Studio does not take `mad serve` as a backend; behind a semicolon, what to do."""

    def __init__(self, message: str, status: int | None, trouble: Trouble) -> None:
        super().__init__(message, status)
        self.trouble = trouble


@dataclass(frozen=True)
class Served:
    """`mad serve` as Label Studio reaches it; without a password it takes requests from everybody."""

    url: str
    user: str
    password: SecretStr | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Backend:
    """A connection as Label Studio has it; `state` is CONNECTED, "DI" (no answer to /health) or "ER" (/setup failed).

    `model_version` is what /setup named last; `has_password`: it comes with one.
    """

    backend_id: int
    url: str
    title: str
    state: str
    model_version: str
    is_interactive: bool
    has_password: bool

    def is_at(self, url: str) -> bool:
        return self.url.rstrip("/") == url.rstrip("/")


def served_at(settings: Settings, secrets: Secrets, url: str | None = None) -> Served:
    """`mad serve` of these settings, at `url` if Label Studio reaches it elsewhere than at serve.public_url.

    Raises SettingsError where neither is given, or `url` is no address.
    """
    found = url or settings.serve.public_url
    if found is None:
        raise SettingsError(
            "nobody knows where Label Studio reaches `mad serve`; set serve.public_url, or give --url http://..."
        )
    parts = urlsplit(found)
    is_address = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    if not is_address or "@" in parts.netloc:
        raise SettingsError(
            "--url: wanted http://host or https://host, with a port or a path behind it where needed and without user "
            f"or password, got {parts.hostname or 'something else'}"
        )
    return Served(found.rstrip("/"), settings.serve.user, secrets.serve_password)


def credentials(settings: Settings, secrets: Secrets) -> dict[str, str]:
    """The header by which `mad serve` knows us; empty where it wants no password."""
    if secrets.serve_password is None:
        return {}
    pair = f"{settings.serve.user}:{secrets.serve_password.get_secret_value()}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def backends(client: LabelStudioClient, project_id: int) -> list[Backend]:
    """Those of a project, the one that Label Studio asks first; it calls /health and /setup of each to answer."""
    wanted = f"listing the ML backends of project {project_id}"
    found = client.get("/api/ml/", wanted, {"project": project_id})
    return sorted((_read(entry) for entry in found), key=lambda b: b.backend_id)


def ours_of(found: list[Backend], url: str | None, title: str) -> list[Backend]:
    """Those at our address or of our title, oldest first."""
    return [backend for backend in found if (url and backend.is_at(url)) or backend.title == title]


def ensure_backend(
    client: LabelStudioClient,
    project_id: int,
    served: Served,
    title: str = TITLE,
    *,
    is_interactive: bool = False,
) -> Backend:
    """Our connection of the project: found by address or title and put right, or made; never two.

    Label Studio calls /health and /setup at once, and gives /setup the token of whoever made the project. Raises
    LabelStudioError; a BackendError where it cannot reach them, blocks the address, or has another password than `mad
    serve`.
    """
    body = {"project": project_id, "url": served.url, "title": title, "is_interactive": is_interactive}
    # All of it in changes too: Label Studio tries the connection out with what a PATCH has, not with what it kept.
    body |= _authentication(served)
    ours = ours_of(backends(client, project_id), served.url, title)
    wanted = f"connecting the ML backend {served.url} to project {project_id}"
    try:
        if ours:
            answer = client.send("PATCH", f"/api/ml/{ours[0].backend_id}", wanted, body)
        else:
            answer = client.send("POST", "/api/ml/", wanted, body)
    except LabelStudioError as error:
        raise _explained(error, served.url) from error
    for twin in ours[1:]:
        delete_backend(client, twin.backend_id)
    return _read(client.get(f"/api/ml/{answer['id']}", f"reading ML backend {answer['id']}"))


def delete_backend(client: LabelStudioClient, backend_id: int) -> None:
    """Predictions that are stored stay; a `model_version` that was its title may, and then names nothing."""
    client.send("DELETE", f"/api/ml/{backend_id}", f"deleting ML backend {backend_id}")


def stored_predictions(client: LabelStudioClient, project_id: int) -> dict[str, int]:
    """Version -> number of predictions that the project has of it, the one of the newest prediction first."""
    wanted = f"listing the model versions of project {project_id}"
    path = f"/api/projects/{project_id}/model-versions/"
    found = client.get(path, wanted, {"extended": "true"})
    return {entry["model_version"]: entry["count"] for entry in found["static"]}


def _explained(error: LabelStudioError, url: str) -> LabelStudioError:
    """A BackendError if `error` is one of those; others as they are."""
    said = str(error)
    trouble = next((t for t in Trouble if t in said), None)
    if trouble is None:
        return error
    # A proxy in front of `mad serve` may let /health pass without a password.
    if trouble in (Trouble.UNHEARD, Trouble.STRANGE) and _UNAUTHORIZED in said:
        trouble = Trouble.REFUSED
    return BackendError(_told(trouble, url), error.status, trouble)


def _told(trouble: Trouble, url: str) -> str:
    match trouble:
        case Trouble.BLOCKED:
            return (
                f"Label Studio refuses ML backends at {url}, an address of a private network; start Label Studio with "
                "LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false"
            )
        case Trouble.UNKNOWN_HOST:
            return (
                f"Label Studio's machine knows no host of the name in {url}; set serve.public_url to an address that "
                "it reaches"
            )
        case Trouble.REFUSED:
            return (
                f"`mad serve` at {url} refuses our user and password; export the same MAD_SERVE_PASSWORD here as for "
                "`mad serve`, with the same serve.user"
            )
        case Trouble.UNHEARD:
            return (
                f"Label Studio does not reach {url}; start `mad serve`, and set serve.public_url to an address that "
                "Label Studio's machine reaches (in a container, 127.0.0.1 is the container itself)"
            )
        case Trouble.STRANGE:
            return f"what answers at {url} is no ML backend that is ready; the log of `mad serve` says why"
        case _:
            assert_never(trouble)


def _authentication(served: Served) -> Json:
    if served.password is None:
        # A password cannot be emptied there, but without a user it is not sent.
        return {"auth_method": "NONE", "basic_auth_user": ""}
    return {
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": served.user,
        "basic_auth_pass": served.password.get_secret_value(),
    }


def _read(entry: dict[str, Any]) -> Backend:
    return Backend(
        entry["id"],
        entry["url"],
        entry["title"] or "",
        entry["state"],
        entry["model_version"] or "",
        bool(entry["is_interactive"]),
        bool(entry["basic_auth_pass_is_set"] and entry["basic_auth_user"]),
    )
