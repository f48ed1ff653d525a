"""A whole project with everybody's answers in one go, by an export snapshot that is deleted at once.

Of Label Studio 1.23.2's ways to read a whole project this is the quickest. Each leaves a file on the server's disk, so
it is for whole projects only.
"""

import time
from typing import Final

from mad_backend.errors import LabelStudioError
from sync.client import LabelStudioClient
from sync.shapes import Json

_PATIENCE_S: Final = 600.0
"""Community answers when the snapshot is made; servers with a queue make it later."""
_PAUSE_S: Final = 1.0


def whole_project(client: LabelStudioClient, project_id: int) -> list[Json]:
    """Every task with all annotations and predictions; raises LabelStudioError."""
    wanted = f"exporting project {project_id}"
    exports = f"/api/projects/{project_id}/exports/"
    options = {"drafts": {"only_id": True}, "predictions": {"only_id": False}}
    made = client.send("POST", exports, wanted, {"serialization_options": options})
    address = f"{exports}{made['id']}"
    try:
        until = time.monotonic() + _PATIENCE_S
        while made["status"] in ("created", "in_progress"):
            if time.monotonic() > until:
                raise LabelStudioError(
                    f"{wanted}: not done after {_PATIENCE_S:.0f} s; is the server's queue at work?"
                )
            time.sleep(_PAUSE_S)
            made = client.get(address, wanted)
        if made["status"] != "completed":
            raise LabelStudioError(f"{wanted}: Label Studio says {made['status']}; its own log tells why")
        return list(client.get(f"{address}/download", wanted, {"exportType": "JSON"}))
    finally:
        client.send("DELETE", address, f"deleting the export of project {project_id}")
