"""Imports that a server puts into a queue, as Label Studio Enterprise does, until they are done."""

import time
from collections.abc import Callable
from typing import Any, Final

from mad_backend.errors import LabelStudioError
from sync.patience import RESTART, Patience
from sync.shapes import Json

_SLOWEST: Final = 10
"""Pauses between questions grow to this many times the first."""
NOT_YET: Final = 202
"""Status of the error for an import that does not get on: it may still happen, so it must not be sent again."""


def finished(
    get: Callable[[str, str], Any],
    project_id: int,
    answer: Any,
    wanted: str,
    *,
    pause_s: float,
    patience_s: float,
) -> Json:
    """What an import's `answer` says of it, or, where that is only `{"import": id}`, what the queue says at its end.

    `get` takes path and purpose. Raises LabelStudioError: with the server's reason and status 400 where the import
    failed, with status 202 where it made no progress for `patience_s`.
    """
    if not isinstance(answer, dict) or "import" not in answer:
        return answer if isinstance(answer, dict) else {}
    path = f"/api/projects/{project_id}/imports/{answer['import']}/"
    patience, longest_s = Patience(RESTART, pause_s), _SLOWEST * pause_s
    seen: object = None
    since = time.monotonic()
    while True:
        try:
            found: Json = get(path, f"{wanted} (import {answer['import']} in the server's queue)")
        except LabelStudioError as error:
            # To give up on a queued import would mean sending it again while it still runs.
            patience.wait(wanted, error)
            continue
        patience.restore()
        match found.get("status"):
            case "completed":
                return found
            case "failed":
                reason = str(found.get("error") or "no reason given")[:400]
                raise LabelStudioError(f"{wanted}: the import failed on the server ({reason})", 400)
        now = (found.get("status"), found.get("task_count"))
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience_s:
            raise LabelStudioError(
                f"{wanted}: import {answer['import']} of project {project_id} has been {now[0]} in the server's queue "
                f"for {patience_s:.0f} s; look at its workers, and repeat this when it is through",
                NOT_YET,
            )
        time.sleep(pause_s)
        pause_s = min(longest_s, 1.5 * pause_s)
