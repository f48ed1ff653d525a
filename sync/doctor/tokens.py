"""Checks of our token, of the tokens of raters, and of who is there to do the work."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from mad_backend.errors import LabelStudioError
from mad_backend.network.tokens import is_jwt
from sync.client import LabelStudioClient
from sync.doctor.findings import Finding, from_error, not_checked, ok, warning, wrong
from sync.doctor.situation import Situation

_SUBMIT: Final = "annotation:annotation:submit"
_WHERE: Final = "Account & Settings > Access Token"


def token(at: Situation) -> Iterator[Finding]:
    """The server takes it; whose it is, and of which kind."""
    client = at.client
    assert at.secrets.label_studio_token is not None
    secret = at.secrets.label_studio_token.get_secret_value().strip()
    claims = _claims(secret)
    kind = "personal access token" if is_jwt(secret) else "legacy token"
    if claims.get("token_type") == "access":
        yield wrong(
            "MAD_LABEL_STUDIO_TOKEN is an access token, which lives for 5 minutes",
            f"set MAD_LABEL_STUDIO_TOKEN to the personal access token it was drawn from, or make one: {_WHERE}",
        )
        return
    ends = claims.get("exp")
    if isinstance(ends, int | float) and ends < datetime.now(UTC).timestamp():
        yield wrong(
            f"the personal access token expired at {datetime.fromtimestamp(ends, UTC):%Y-%m-%d %H:%M} UTC",
            f"make a new one ({_WHERE}) and set MAD_LABEL_STUDIO_TOKEN",
        )
        return
    try:
        owner = client.current_user()
    except LabelStudioError as error:
        yield _refused(error, kind)
        return
    yield ok(f"{kind} of {owner.email}")


def people(at: Situation) -> Iterator[Finding]:
    """Enough people for ratings and for the cross-check, and everybody that settings name."""
    settings = at.settings
    emails = {email.casefold() for email in at.client.people().values()}
    absent = [email for email in settings.rating.people if email.casefold() not in emails]
    if absent:
        yield wrong(
            f"rating.people: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not in the organisation",
            "invite them (Organization > Add Members), or correct rating.people",
        )
    raters = settings.rating.raters
    if len(emails) < raters:
        yield wrong(
            f"rating.raters is {raters}, and the organisation has {len(emails)} people: no image will ever be done",
            "invite more (Organization > Add Members), or lower rating.raters",
        )
    elif not absent:
        yield ok(f"{len(emails)} people in the organisation for {raters} ratings an image")
    if settings.check.enabled and len(emails) < 2:
        yield wrong(
            "the cross-check wants somebody beside the author of a map, and there is one person only",
            "invite another (Organization > Add Members), or set check.enabled: false",
        )


def enter_keys(at: Situation) -> Iterator[Finding]:
    """Enter submits, for the raters whose tokens we hold."""
    if not at.secrets.rater_tokens:
        yield not_checked("no raters' tokens (MAD_RATER_TOKENS); raters submit with Ctrl+Enter")
        return
    right = []
    for email, secret in sorted(at.secrets.rater_tokens.items()):
        client = at.client_of(secret)
        try:
            owner = client.current_user().email
        except LabelStudioError as error:
            refused = from_error(error)
            yield wrong(f"the token of {email} in MAD_RATER_TOKENS: {refused.told}", refused.cure)
            continue
        if owner.casefold() != email.casefold():
            yield wrong(f"the token of {email} in MAD_RATER_TOKENS is that of {owner}", "exchange the two")
        elif not _submits_with_enter(client):
            yield warning(
                f"Enter does not submit for {email}", "it will with the next push of a rating project"
            )
        else:
            right.append(email)
    if right:
        yield ok(f"Enter submits for {', '.join(right)}")


def _refused(error: LabelStudioError, kind: str) -> Finding:
    if "legacy token" in str(error).lower():
        return wrong(
            "legacy tokens are switched off for the organisation, and MAD_LABEL_STUDIO_TOKEN is one",
            f"set it to a personal access token ({_WHERE}), or switch on Organization > API Tokens Settings > "
            "Legacy Tokens",
        )
    if error.status == 401:
        return wrong(
            f"the server knows no such {kind}: it is wrong or revoked",
            f"copy it again from {_WHERE} and set MAD_LABEL_STUDIO_TOKEN",
        )
    return from_error(error)


def _submits_with_enter(client: LabelStudioClient) -> bool:
    keys = client.get("/api/current-user/hotkeys/", "reading the keys").get("custom_hotkeys") or {}
    mine = keys.get(_SUBMIT) or {}
    return mine.get("key") == "enter" and mine.get("active") is not False


def _claims(secret: str) -> dict[str, Any]:
    """What a JWT says of itself; not verified, that is the server's part. Empty for a legacy token."""
    if not is_jwt(secret):
        return {}
    part = secret.split(".")[1]
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
