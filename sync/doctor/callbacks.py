"""Checks of the way back, from Label Studio to `mad serve`: address blocks, the ML backend, webhooks."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from mad_backend.errors import LabelStudioError
from mad_backend.label_studio.webhook import SECRET_HEADER
from sync.doctor.findings import Finding, not_checked, ok, warning, wrong
from sync.doctor.situation import Situation
from sync.doctor.visits import UnreachableError
from sync.ml_backends import BackendError, Trouble, delete_backend, ensure_backend, served_at
from sync.webhooks import create_webhook, delete_webhook, webhook_address

_BLOCKED: Final = "reserved network address"
_PATIENCE_S: Final = 5.0
"""For a delivery that a worker of Label Studio makes (Enterprise); Community's comes before the answer."""
_BLINK_S: Final = 0.5
_POLL_S: Final = 0.05
_PUBLIC: Final = "serve.public_url"
_UNKNOWN: Final = (
    "serve.port is 0 and serve.public_url is not set, so nobody knows the address of `mad serve`"
)
_TIMEOUT_CURE: Final = (
    "set serve.public_url to an address that Label Studio's machine reaches, and let its firewall through"
)


def serving(at: Situation) -> Iterator[Finding]:
    """`mad serve` runs, is ours, and is reached from here."""
    url = at.serve_url
    if url is None:
        yield not_checked(_UNKNOWN)
        return
    try:
        answer = at.visitor.get(f"{url}/health", at.credentials)
    except UnreachableError as error:
        yield _absent(at, url, error)
        return
    if answer.status == 401:
        yield wrong(
            f"what answers at {url} refuses our user and password: its MAD_SERVE_PASSWORD or serve.user is another",
            "export the same MAD_SERVE_PASSWORD for `mad serve` and here, and use the same settings file",
        )
        return
    body = answer.json()
    if not isinstance(body, dict) or "target" not in body:
        yield wrong(f"what answers at {url} is not `mad serve` (status {answer.status})", _correct(at, url))
        return
    if body["target"] != at.settings.models.name:
        yield wrong(
            f'`mad serve` at {url} serves "{body["target"]}", this project\'s target is "{at.settings.models.name}"',
            f"start `mad serve` with this settings file on a port of its own, and correct {_PUBLIC} or serve.port",
        )
        return
    promoted = at.store.versions.promoted()
    version = promoted.version if promoted else None
    told = at.visitor.post(f"{url}/setup", {}, at.credentials).json()
    served = told.get("model_version") if isinstance(told, dict) else None
    if served != version:
        yield wrong(
            f"`mad serve` at {url} has {served}, the database here {version}: they use different databases",
            "start `mad serve` with this settings file, and with `database` a server both reach",
        )
        return
    yield ok(f"`mad serve` at {url} serves {version or 'nothing yet: no round was started'}")


def ml_backend(at: Situation) -> Iterator[Finding]:
    """Label Studio takes `mad serve` as an ML backend."""
    url = at.serve_url
    if url is None:
        yield not_checked(_UNKNOWN)
        return
    tell = _teller(at)
    served = served_at(at.settings, at.secrets, url)
    try:
        backend = ensure_backend(at.client, at.probe.project_id, served, "mad doctor")
    except BackendError as error:
        told, _, cure = str(error).partition("; ")
        is_elsewhere = error.trouble in (Trouble.BLOCKED, Trouble.UNKNOWN_HOST)
        if not is_elsewhere and not _answers(at, url):
            yield tell(f"Label Studio finds nothing at {url}", "start `mad serve`")
        elif error.trouble is Trouble.UNHEARD:
            yield wrong(f"Label Studio's machine does not reach {url}, although this one does", _TIMEOUT_CURE)
        elif error.trouble is Trouble.REFUSED:
            yield wrong(told, cure)
        else:
            yield tell(told, cure)
        return
    delete_backend(at.client, backend.backend_id)
    yield ok(f"Label Studio reaches {url}, model version {backend.model_version or 'none'}")


def webhook_block(at: Situation) -> Iterator[Finding]:
    """Label Studio takes our address for webhooks."""
    url = at.serve_url
    if url is None:
        yield not_checked(_UNKNOWN)
        return
    address = webhook_address(url)
    try:
        hook = create_webhook(at.client, at.probe.project_id, address, at.secrets.webhook_secret)
    except LabelStudioError as error:
        tell = _teller(at)
        if _BLOCKED in str(error):
            yield tell(
                f"Label Studio refuses webhooks to {address}, an address of a private network",
                "start Label Studio with LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false",
            )
        elif error.status == 400:
            yield tell(
                f"Label Studio takes {address} for no address of a webhook: it wants a dot in the host's name",
                f'set {_PUBLIC} to a full name or an IP address ("mad.internal", not "mad")',
            )
        else:
            raise
        return
    delete_webhook(at.client, hook)
    yield ok(f"Label Studio takes webhooks to {address}")


def webhook_delivery(at: Situation) -> Iterator[Finding]:
    """An answer given in Label Studio is known here within seconds."""
    if not at.settings.label_studio.webhooks:
        yield not_checked("label_studio.webhooks is false; answers are seen every schedule.tick_s seconds")
        return
    url = at.settings.serve.public_url
    if url is None:
        yield not_checked(f"{_PUBLIC} is not set; answers are seen every schedule.tick_s seconds")
        return
    address = webhook_address(url)
    is_wished = at.store.remote.take_pull_wish()
    try:
        trouble = _knock(at, address) or _deliver(at, address)
    finally:
        # Taken from whoever waits for it; a pull too many costs nothing.
        if is_wished:
            at.store.remote.want_pull()
    yield trouble or ok(f"an answer in Label Studio reaches {address} and this database at once")


def _knock(at: Situation, address: str) -> Finding | None:
    """What a delivery sent from here shows; None: it arrived."""
    secret = at.secrets.webhook_secret
    headers = {SECRET_HEADER: secret.get_secret_value() if secret else ""}
    try:
        answer = at.visitor.post(address, {"action": "TEST"}, headers)
    except UnreachableError as error:
        return not_checked(f"`mad serve` is not reached from here ({str(error).partition(';')[0]})")
    if answer.status == 403:
        return wrong(
            f"{address} refuses our secret: MAD_WEBHOOK_SECRET of `mad serve` and of this process differ",
            "export the same MAD_WEBHOOK_SECRET for `mad serve`, `mad schedule` and here, and start both again",
        )
    if answer.status != 200:
        return wrong(
            f"{address} answers {answer.status} to a webhook",
            f"let the proxy in front of `mad serve` pass POST /webhook on, or correct {_PUBLIC}",
        )
    if not _arrives(at, _BLINK_S):
        return wrong(
            f"{address} takes webhooks, but for another database than the one here",
            "start `mad serve` with this settings file, and with `database` a server both reach",
        )
    return None


def _deliver(at: Situation, address: str) -> Finding | None:
    """Annotates a probe task; twice, since a scheduler may take the first word of it before we see it."""
    task = at.probe.task("/none.jpg")
    hook = create_webhook(at.client, at.probe.project_id, address, at.secrets.webhook_secret)
    try:
        for patience_s in (_PATIENCE_S, _BLINK_S):
            at.client.create_annotation(task, [])
            if _arrives(at, patience_s):
                return None
    finally:
        delete_webhook(at.client, hook)
    return wrong(f"Label Studio's machine does not reach {address}, although this one does", _TIMEOUT_CURE)


def _arrives(at: Situation, patience_s: float) -> bool:
    """True if word of a change is in the database in time; it is taken."""
    end = time.monotonic() + patience_s
    while not at.store.remote.take_pull_wish():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def _absent(at: Situation, url: str, error: UnreachableError) -> Finding:
    local = at.local_url
    if local is not None and local != url and _answers(at, local):
        return wrong(
            f"`mad serve` runs at {local}, but {url} does not lead there ({str(error).partition(';')[0]})",
            f"correct {_PUBLIC}, or the proxy that should pass it on to {local}",
        )
    told, _, cure = str(error).partition("; ")
    if at.settings.serve.public_url is None and at.settings.label_studio.media != "serve":
        return warning(
            f"`mad serve` does not run ({told}): no predictions inside Label Studio, no webhooks",
            "start it, if you want them: mad serve",
        )
    return wrong(f"`mad serve` is not reached at {url}: {told}", f"start `mad serve`; {cure}")


def _answers(at: Situation, url: str) -> bool:
    """True for `mad serve` with another password, too."""
    try:
        return at.visitor.get(f"{url}/health", at.credentials).status in (200, 401)
    except UnreachableError:
        return False


def _teller(at: Situation) -> Callable[[str, str], Finding]:
    """(what, cure) -> wrong where `mad serve` is used, else a warning."""
    is_public = at.settings.serve.public_url is not None
    is_used = is_public or (at.serve_url is not None and _answers(at, at.serve_url))
    return wrong if is_used else warning


def _correct(at: Situation, url: str) -> str:
    return (
        f"correct {_PUBLIC}"
        if at.settings.serve.public_url
        else f"set serve.port to a free one; {url} is taken"
    )
