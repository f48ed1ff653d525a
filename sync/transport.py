"""One HTTP call to Label Studio: token, timeout, retries, and errors that say what to do."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.auth import AuthBase

from mad_backend.errors import LabelStudioError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_ACCESS_LIFE_S: Final = 240.0
"""An access token lives 300 s (measured on 1.23.2); renewed a minute before."""
_TRIES: Final = 4
_CONNECT_TIMEOUT_S: Final = 5.0
_HOPS: Final = 5
_BLOCK: Final = 2**20
_SSRF_ADVICE: Final = (
    "start Label Studio with LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false and "
    "LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false, "
    "since the address is a private one"
)


class Transport:
    """Calls under one base address with one token; only GET is tried again.

    `token` is a legacy token, or a personal access token (a JWT), from which short-lived access tokens are
    drawn.
    """

    def __init__(self, url: str, token: str, timeout_s: float, backoff_s: float) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._backoff_s = backoff_s
        self._session = requests.Session()
        self._token = _PersonalToken(token, self._session, self.url) if is_jwt(token) else _LegacyToken(token)

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    def call(self, method: str, path: str, wanted: str, **options: Any) -> Any:
        """Decoded JSON answer (None when empty); `wanted` says in errors what the call was for.

        `options` are those of `requests.request`. Raises LabelStudioError; its `status` is None if no answer
        came.
        """
        tries = _TRIES if method == "GET" else 1
        return self._tried(tries, wanted, lambda: self._send(method, path, wanted, options))

    def download(self, path: str, wanted: str, limit: int) -> bytes:
        """The bytes of a file of the server, at most `limit`.

        The server may send us on, to a store for instance; the token never goes to another host. Raises
        LabelStudioError.
        """
        return self._tried(_TRIES, wanted, lambda: self._fetch(path, wanted, limit))

    def _tried(self, tries: int, wanted: str, work: Callable[[], Answer]) -> Answer:
        for left in reversed(range(tries)):
            try:
                answer = work()
            except LabelStudioError as error:
                if not left or not (error.status is None or error.status >= 500):
                    raise
                pause_s = self._backoff_s * 2 ** (tries - 1 - left)
                log.info("%s: trying again in %.1f s (%s)", wanted, pause_s, error)
                time.sleep(pause_s)
            else:
                return answer
        raise AssertionError("the last try returns or raises")

    def _send(self, method: str, path: str, wanted: str, options: Mapping[str, Any]) -> Any:
        answer = self._request(method, self.url + path, wanted, options)
        if answer.status_code == 401 and self._token.renew():
            answer = self._request(method, self.url + path, wanted, options)
        if not 200 <= answer.status_code < 300:
            raise LabelStudioError(self._token.scrub(self._refusal(answer, wanted)), answer.status_code)
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise LabelStudioError(
                f"{wanted}: {self.url} answered with something that is not JSON; is this the address of "
                "Label Studio?",
                answer.status_code,
            ) from None

    def _fetch(self, path: str, wanted: str, limit: int) -> bytes:
        address = self.url + path
        for _ in range(_HOPS):
            if is_same_host(address, self.url):
                answer = self._request("GET", address, wanted, {"stream": True})
                if answer.status_code == 401 and self._token.renew():
                    answer.close()
                    answer = self._request("GET", address, wanted, {"stream": True})
            else:
                answer = self._stranger(address, wanted)
            with answer:
                if answer.is_redirect:
                    address = urljoin(address, answer.headers["Location"])
                    continue
                if answer.status_code != 200:
                    raise LabelStudioError(
                        self._token.scrub(self._refusal(answer, wanted)), answer.status_code
                    )
                return self._content(answer, wanted, limit)
        raise LabelStudioError(f"{wanted}: Label Studio at {self.url} sends us round in circles", 310)

    def _stranger(self, address: str, wanted: str) -> requests.Response:
        """From a host that the server named; without token, cookies or ~/.netrc."""
        try:
            return requests.get(
                address,
                auth=_no_auth,
                stream=True,
                allow_redirects=False,
                timeout=(_CONNECT_TIMEOUT_S, self._timeout_s),
            )
        except requests.RequestException as error:
            host = urlsplit(address).netloc
            raise LabelStudioError(
                f"{wanted}: Label Studio at {self.url} sends us to {host}, which did not answer "
                f"({type(error).__name__})"
            ) from None

    def _content(self, answer: requests.Response, wanted: str, limit: int) -> bytes:
        blocks, length = [], 0
        try:
            for block in answer.iter_content(_BLOCK):
                blocks.append(block)
                length += len(block)
                if length > limit:
                    raise LabelStudioError(f"{wanted}: it has more than {limit:,} bytes, the limit", 413)
        except requests.RequestException as error:
            raise LabelStudioError(
                f"{wanted}: Label Studio at {self.url} stopped half way ({type(error).__name__})"
            ) from None
        return b"".join(blocks)

    def _request(
        self, method: str, address: str, wanted: str, options: Mapping[str, Any]
    ) -> requests.Response:
        try:
            # A redirect would turn POST into GET, so it is an error that names the right address.
            return self._session.request(
                method,
                address,
                auth=self._token,
                timeout=(_CONNECT_TIMEOUT_S, self._timeout_s),
                allow_redirects=False,
                **options,
            )
        except requests.RequestException as error:
            raise LabelStudioError(
                f"{wanted}: Label Studio at {self.url} did not answer ({type(error).__name__}); check that "
                "it runs, that the address is right, and that it is not overloaded"
            ) from None

    def _refusal(self, answer: requests.Response, wanted: str) -> str:
        detail, status = _detail(answer), answer.status_code
        said = f"{wanted}: Label Studio at {self.url} answered {status}"
        if 300 <= status < 400:
            where = answer.headers.get("Location")
            return f"{said}, sending us to {where}; set the address to where it really is"
        if status == 401 and "legacy token" in detail.lower():
            return (
                f"{said}: legacy tokens are switched off there; use a personal access token (Account & "
                "Settings), or switch legacy tokens on (Organization > Access Token Settings)"
            )
        if status == 401:
            return f"{said} ({detail}); the token is wrong or revoked: copy it again from Account & Settings"
        if status == 403 and "reserved network address" in detail:
            return f"{said} ({detail}); {_SSRF_ADVICE}"
        if status >= 500:
            return f"{said} ({detail}); its own log tells why"
        return f"{said} ({detail})"


def is_same_host(one: str, other: str) -> bool:
    """True for addresses of one server: scheme, host and port."""
    ports = {"http": 80, "https": 443}
    try:
        first, second = (
            (parts.scheme, parts.hostname, parts.port or ports.get(parts.scheme))
            for parts in (urlsplit(one), urlsplit(other))
        )
    except ValueError:  # a port that is no number
        return False
    return first == second


def is_jwt(token: str) -> bool:
    """True for a personal access token; legacy tokens are 40 hex digits."""
    return token.startswith("ey") and token.count(".") == 2


class _LegacyToken(AuthBase):
    """An `auth` callable and not a header, because requests lets a ~/.netrc entry overwrite the header."""

    def __init__(self, token: str) -> None:
        self._secret = token

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Token {self._secret}"
        return request

    def renew(self) -> bool:
        """True if another try with a new token makes sense."""
        return False

    def scrub(self, text: str) -> str:
        """`text` without the token, should a server ever echo it."""
        return text.replace(self._secret, "***") if self._secret else text


class _PersonalToken(_LegacyToken):
    """Draws access tokens from a refresh token as they run out."""

    def __init__(self, token: str, session: requests.Session, url: str) -> None:
        super().__init__(token)
        self._session = session
        self._url = url
        self._access = ""
        self._fresh_until = 0.0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if time.monotonic() >= self._fresh_until:
            self._draw()
        request.headers["Authorization"] = f"Bearer {self._access}"
        return request

    def renew(self) -> bool:
        self._fresh_until = 0.0
        return True

    def _draw(self) -> None:
        timeout = (_CONNECT_TIMEOUT_S, 30.0)
        address = f"{self._url}/api/token/refresh/"
        answer = self._session.post(
            address, json={"refresh": self._secret}, timeout=timeout, auth=_no_auth, allow_redirects=False
        )
        if answer.status_code != 200:
            raise LabelStudioError(
                f"drawing an access token: Label Studio at {self._url} answered {answer.status_code} "
                f"({self.scrub(_detail(answer))}); the personal access token is wrong or revoked: make a "
                "new one under Account & Settings",
                answer.status_code,
            )
        self._access = str(answer.json()["access"])
        self._fresh_until = time.monotonic() + _ACCESS_LIFE_S


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _detail(answer: requests.Response) -> str:
    """What the server says went wrong, shortened; its `id` field is only the id of the error."""
    try:
        body = answer.json()
    except ValueError:
        return answer.reason or "no reason given"
    if isinstance(body, dict):
        told = body.get("validation_errors") or body.get("detail") or body
        return str(told)[:400]
    return str(body)[:400]
