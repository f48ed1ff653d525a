"""Who may ask: basic authentication for all that Label Studio sends with it, a secret for its webhooks."""

import binascii
import hmac
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from flask import Flask, Response, abort, jsonify, request
from pydantic import SecretStr

from mad_backend.label_studio.webhook import SECRET_HEADER
from mad_backend.settings import Secrets

_ENCODINGS: Final = ("utf-8", "latin-1")
"""Of a password: browsers and curl send the first, `requests`, and with it Label Studio, the second."""


class Credentials:
    """`serve.user` with MAD_SERVE_PASSWORD, and MAD_WEBHOOK_SECRET; each is asked for only if it is set."""

    def __init__(self, user: str, secrets: Secrets) -> None:
        self._user = user
        self._password = secrets.serve_password
        self._webhook_secret = secrets.webhook_secret

    def are_given(self) -> bool:
        """Whether the request comes with user and password, or needs none."""
        return self._password is None or self._is_user(self._password)

    def open_webhook(self, given: str) -> bool:
        """Whether a webhook with the secret `given` may come in.

        Without a secret it always may: Label Studio's own webhook cannot authenticate, and all that it does is to have
        `mad schedule` look sooner.
        """
        if self._webhook_secret is None:
            return True
        if hmac.compare_digest(given.encode(), self._webhook_secret.get_secret_value().encode()):
            return True
        return self._password is not None and self._is_user(self._password)

    def _is_user(self, password: SecretStr) -> bool:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            user, colon, secret = b64decode(token.strip().encode("ascii"), validate=True).partition(b":")
        except (binascii.Error, UnicodeEncodeError):
            return False
        # Everything is compared in any case: the time taken tells nothing about what of it was right.
        are_right = [
            hmac.compare_digest(user, right_user) & hmac.compare_digest(secret, right_secret)
            for right_user, right_secret in _spellings(self._user, password.get_secret_value())
        ]
        return bool(colon) and any(are_right)


def require(app: Flask, credentials: Credentials, open_endpoints: frozenset[str]) -> None:
    """Lets requests to other endpoints than `open_endpoints`, unknown ones included, in with credentials only."""

    @app.before_request
    def check() -> Response | None:
        if request.endpoint in open_endpoints or credentials.are_given():
            return None
        answer = jsonify(error="wanted basic authentication: serve.user and MAD_SERVE_PASSWORD")
        answer.status_code = 401
        answer.headers["WWW-Authenticate"] = 'Basic realm="mad", charset="UTF-8"'
        return answer


def check_webhook(credentials: Credentials, secret: str) -> None:
    """Aborts with 403 unless the request, whose address ends in `secret`, may leave word."""
    if not credentials.open_webhook(request.headers.get(SECRET_HEADER, secret)):
        abort(403, f"wanted the webhook secret in the header {SECRET_HEADER}, or as /webhook/<secret>")


def _spellings(*texts: str) -> Iterator[tuple[bytes, ...]]:
    """`texts` as bytes, in each of the encodings that has all their letters."""
    for encoding in _ENCODINGS:
        with suppress(UnicodeEncodeError):
            yield tuple(text.encode(encoding) for text in texts)
