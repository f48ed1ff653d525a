"""A Label Studio for one benchmark, and the SDK as a peer on it."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mad_backend.store.store import Store
from sync.embedded import EmbeddedLabelStudio

_HOME = Path(__file__).parents[1] / ".venv-label-studio" / "bin"


@contextmanager
def fresh_server() -> Iterator[tuple[EmbeddedLabelStudio, Store, Path]]:
    """An empty server, a store with round 1, and a folder; all gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = Store(f"sqlite:///{root}/mad.sqlite3")
        store.rounds.create(1, 7, datetime(2026, 1, 1, tzinfo=UTC))
        sys.stderr.write("starting Label Studio on an empty database, a minute or more\n")
        with EmbeddedLabelStudio(root / "server", _HOME / "label-studio") as server:
            yield server, store, root
        store.close()


def sdk_seconds(server: EmbeddedLabelStudio, what: str, project_id: int, **asked: Any) -> float:
    """How long the SDK took; the token goes through a pipe, so that no list of processes shows it."""
    told = {"url": server.url, "token": server.token, "what": what, "project": project_id, **asked}
    done = subprocess.run(
        [_HOME / "python", Path(__file__).with_name("sdk_peer.py")],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the SDK failed with {done.stderr[-2000:]}")
    return float(done.stdout)
