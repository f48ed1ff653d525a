"""Tokens of Label Studio: how each is shown to the server, and that it is shown to nobody else."""

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from requests import PreparedRequest, Response, Session
from requests.auth import AuthBase

from mad_backend.errors import LabelStudioError
from mad_backend.network.tls import Certificates

_LIFE_S: Final = 300.0
"""Of an access token, where it does not tell (measured on 1.23.2)."""
_CONNECT_TIMEOUT_S: Final = 5.0
_DRAW_TIMEOUT_S: Final = 30.0
_USED_SHARE: Final = 0.8
"""Of its life, then another one is drawn: clocks do not run alike, and a request takes its time."""


def is_jwt(token: str) -> bool:
    """True for a personal access token; legacy tokens are 40 hex digits."""
    return token.startswith("ey") and token.count(".") == 2


def no_auth(request: PreparedRequest) -> PreparedRequest:
    """For `auth`, where None would let a ~/.netrc entry in."""
    return request


class LegacyToken(AuthBase):
    """An `auth` callable and not a header, because requests lets a ~/.netrc entry overwrite the header."""

    def __init__(self, token: str) -> None:
        self._secret = token

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Token {self._secret}"
        return request

    def renew(self) -> bool:
        """True if another try with a new token makes sense."""
        return False

    def scrub(self, text: str) -> str:
        """`text` without the token, should a server ever echo it."""
        return text.replace(self._secret, "***") if self._secret else text


class PersonalToken(LegacyToken):
    """Draws access tokens from a refresh token as they run out; several threads may share it.

    `ask` sends a body to the server's /api/token/refresh/. A refresh token stays good when it was used, so any number
    of processes may draw from one.
    """

    def __init__(self, token: str, ask: Callable[[Mapping[str, str]], Response]) -> None:
        super().__init__(token)
        self._ask = ask
        self._access = ""
        self._fresh_until = 0.0
        self._drawing = threading.Lock()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        with self._drawing:
            if time.monotonic() >= self._fresh_until:
                self._draw()
            request.headers["Authorization"] = f"Bearer {self._access}"
        return request

    def renew(self) -> bool:
        """The next request draws anew: the server no longer takes what we thought to be fresh."""
        self._fresh_until = 0.0
        return True

    def scrub(self, text: str) -> str:
        text = super().scrub(text)
        return text.replace(self._access, "***") if self._access else text

    def _draw(self) -> None:
        began = time.monotonic()
        answer = self._ask({"refresh": self._secret})
        status = answer.status_code
        if status != 200:
            raise LabelStudioError(
                f"drawing an access token: the server answered {status}{_reason(status)}", status
            )
        try:
            self._access = str(answer.json()["access"])
        except (ValueError, KeyError, TypeError):
            raise LabelStudioError(
                "drawing an access token: the answer holds none; is this the address of Label Studio?", status
            ) from None
        self._fresh_until = began + _USED_SHARE * _life_s(self._access)


def token_for(url: str, token: str, timeout_s: float, certificates: Certificates) -> LegacyToken:
    """As the server at `url`, which may have a path, wants to be shown `token`, of either kind."""
    if not is_jwt(token):
        return LegacyToken(token)

    def ask(body: Mapping[str, str]) -> Response:
        with certificates.prepare(Session(), own=True) as session:
            return session.post(
                f"{url}/api/token/refresh/",
                json=body,
                timeout=(_CONNECT_TIMEOUT_S, min(_DRAW_TIMEOUT_S, timeout_s)),
                auth=no_auth,
                allow_redirects=False,
                verify=certificates.verify,
            )

    return PersonalToken(token, ask)


def _reason(status: int) -> str:
    if status in (400, 401, 403):
        return "; the personal access token is wrong, revoked or has expired: make a new one under Account & Settings"
    if status == 404:
        return "; it knows no personal access tokens: use a legacy token"
    return ""


def _life_s(access: str) -> float:
    """Seconds from its issue to its end, both by the server's clock (RFC 7519, 4.1.4 and 4.1.6)."""
    try:
        part = access.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return max(0.0, float(claims["exp"]) - float(claims["iat"]))
    except (IndexError, ValueError, KeyError, TypeError):
        return _LIFE_S
