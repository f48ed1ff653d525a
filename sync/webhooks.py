"""Webhooks that hasten pulls: Label Studio tells `mad serve` that somebody answered.

They are delivered at most once, so the polling pull stays the truth.
"""

import logging
from typing import Final

from pydantic import SecretStr

from mad_backend.errors import LabelStudioError
from mad_backend.label_studio.webhook import SECRET_HEADER
from sync.client import Json, LabelStudioClient

log = logging.getLogger(__name__)

ACTIONS: Final = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED")
_REFUSED: Final = (400, 403)
"""An address that Label Studio does not take, a project that is gone, webhooks that this token may not make."""


def webhook_address(public_url: str) -> str:
    """Where `mad serve`, reached at `public_url`, takes webhooks."""
    return f"{public_url.rstrip('/')}/webhook"


def ensure_webhook(
    client: LabelStudioClient, project_id: int, url: str, secret: SecretStr | None
) -> int | None:
    """Id of our webhook of the project to `url`: found and put right, or made; never two.

    None where Label Studio refuses it, which is logged with what to do and costs no more than time. Raises
    LabelStudioError when the server does not answer, fails, or knows no such token.
    """
    wanted = _wanted(url, secret)
    try:
        ours = [hook for hook in webhooks(client, project_id) if _is_ours(hook, url)]
        if not ours:
            return create_webhook(client, project_id, url, secret)
        kept, *twins = ours
        if not _is_right(kept, wanted):
            # `actions` always: a PATCH without them empties the list, and the webhook falls silent.
            what = f"putting webhook {kept['id']} of project {project_id} right"
            client.send("PATCH", f"/api/webhooks/{kept['id']}/", what, wanted)
    except LabelStudioError as error:
        if error.status not in _REFUSED:
            raise
        log.warning("answers in project %d are noticed at the next tick only: %s", project_id, error)
        return None
    for twin in twins:
        delete_webhook(client, twin["id"])
    return int(kept["id"])


def webhooks(client: LabelStudioClient, project_id: int) -> list[Json]:
    """Every webhook of the project, oldest first, as Label Studio has it."""
    found = client.get(
        "/api/webhooks/", f"listing the webhooks of project {project_id}", {"project": project_id}
    )
    return sorted(found, key=lambda hook: int(hook["id"]))


def create_webhook(client: LabelStudioClient, project_id: int, url: str, secret: SecretStr | None) -> int:
    """Id of a new webhook; raises LabelStudioError, with status 403 for an address in a network that is blocked."""
    body = {"project": project_id, **_wanted(url, secret)}
    return int(client.send("POST", "/api/webhooks/", f"making a webhook to {url}", body)["id"])


def delete_webhook(client: LabelStudioClient, webhook_id: int) -> None:
    """Raises LabelStudioError."""
    client.send("DELETE", f"/api/webhooks/{webhook_id}/", f"deleting webhook {webhook_id}")


def _wanted(url: str, secret: SecretStr | None) -> Json:
    return {
        "url": url,
        "send_payload": False,
        "send_for_all_actions": False,
        "actions": list(ACTIONS),
        # Sent without a secret too: by this header a webhook to an earlier address is known as ours.
        "headers": {SECRET_HEADER: secret.get_secret_value() if secret else ""},
        "is_active": True,
    }


def _is_ours(hook: Json, url: str) -> bool:
    """By our header, or by its address: that of a connected ML backend comes without a secret."""
    return SECRET_HEADER in (hook["headers"] or {}) or hook["url"] == url


def _is_right(hook: Json, wanted: Json) -> bool:
    return all(
        set(hook[name]) == set(value) if name == "actions" else hook[name] == value
        for name, value in wanted.items()
    )
