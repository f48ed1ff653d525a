"""What a private Label Studio is started with: admin, token, a free port, and an environment of its own."""

import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from mad_backend.errors import DemoError

HOST: Final = "127.0.0.1"
_ADMIN: Final = "admin@localhost.test"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The admin, their legacy token, and the port; secrets are not in its repr."""

    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    port: int

    def hidden_in(self, text: str) -> str:
        """`text` without password and token."""
        return text.replace(self.password, "***").replace(self.token, "***")


def load_credentials(root: Path, port: int | None) -> Credentials:
    """Those of `root`/credentials.json, made once and readable for their owner only; `port` or the last one, if free.

    Raises DemoError for a file that is damaged, and for a wanted port that is taken.
    """
    path = root / "credentials.json"
    kept: dict[str, Any] = {}
    if path.exists():
        try:
            kept = json.loads(path.read_text())
        except ValueError as error:
            raise DemoError(f"{path} is not JSON ({error}); delete {root} to begin anew") from error
    fresh = {"email": _ADMIN, "password": secrets.token_urlsafe(18), "token": secrets.token_hex(20)}
    known = {name: str(kept.get(name, value)) for name, value in fresh.items()}
    found = Credentials(**known, port=_choose_port(port, kept.get("port")))
    if asdict(found) != kept:
        _write_private(path, json.dumps(asdict(found)))
    return found


def server_environment(root: Path, known: Credentials, overrides: Mapping[str, str]) -> dict[str, str]:
    """A small environment of its own: Label Studio also reads HOST, PORT, DEBUG... without any prefix."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    data = root / "data"
    data.mkdir(exist_ok=True)
    # The dead proxy stops what has no switch (the tips that the start page fetches from GitHub).
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), f"http://{HOST}:9")
    return {
        **kept,
        **proxies,
        "NO_PROXY": f"{HOST},localhost",
        "no_proxy": f"{HOST},localhost",
        "HOME": str(root),
        "COLLECT_ANALYTICS": "False",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_LATEST_VERSION_CHECK": "False",
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": known.email,
        "LABEL_STUDIO_PASSWORD": known.password,
        "LABEL_STUDIO_USER_TOKEN": known.token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
        "fflag_feat_utc_210_prediction_validation_15082025": "true",
        **overrides,
    }


def _choose_port(wanted: int | None, before: int | None) -> int:
    """Label Studio silently takes the next port when its own is busy, so it is looked at before."""
    if wanted is not None:
        if not _is_free(wanted):
            raise DemoError(
                f"port {wanted} on {HOST} is taken; stop what listens there, or choose another port"
            )
        return wanted
    if before is not None and _is_free(before):
        return before
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    """True if nothing on this machine listens there on any address."""
    with socket.socket() as probe:
        # As the server does: without it, connections of the last run still closing would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    """Atomic, mode 0600 from the first byte on."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
