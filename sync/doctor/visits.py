"""Plain requests as others make them: a browser on a page of Label Studio, or somebody without a token."""

import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from mad_backend.errors import MadError
from mad_backend.network.tls import Certificates, advice

_LIMIT: Final = 2**20


class UnreachableError(MadError):
    """Raised when no answer comes; the message says why, and behind a semicolon what to do."""


@dataclass(frozen=True)
class Answer:
    """What came back; names of `headers` are in small letters, `content` is cut at 1 MiB."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The decoded body, None if it is not JSON."""
        try:
            return json.loads(self.content)
        except ValueError:
            return None


class Visitor:
    """Asks without token, cookies or ~/.netrc, and follows no redirects.

    `timeout_s`: to connect, and between two bytes.
    """

    def __init__(self, certificates: Certificates, timeout_s: tuple[float, float] = (5.0, 15.0)) -> None:
        self._timeout_s = timeout_s
        self._verify = certificates.verify
        self._own = certificates.prepare(requests.Session(), own=True)
        self._strangers = certificates.prepare(requests.Session(), own=False)
        for session in (self._own, self._strangers):
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def close(self) -> None:
        self._own.close()
        self._strangers.close()

    def get(self, address: str, headers: Mapping[str, str] | None = None, *, own: bool = False) -> Answer:
        """`own`: the address is Label Studio's, which may want our client certificate. Raises UnreachableError."""
        return self._ask("GET", address, headers, None, own)

    def post(self, address: str, body: object, headers: Mapping[str, str] | None = None) -> Answer:
        """`body` goes as JSON."""
        return self._ask("POST", address, headers, body, False)

    def _ask(
        self, method: str, address: str, headers: Mapping[str, str] | None, body: object, own: bool
    ) -> Answer:
        session = self._own if own else self._strangers
        try:
            with session.request(
                method,
                address,
                headers=dict(headers or {}),
                json=body,
                auth=_no_auth,
                allow_redirects=False,
                stream=True,
                timeout=self._timeout_s,
                verify=self._verify,
            ) as answer:
                content = next(answer.iter_content(_LIMIT), b"")
                named = {name.lower(): value for name, value in answer.headers.items()}
                return Answer(answer.status_code, named, content)
        except (requests.RequestException, ValueError) as error:
            raise UnreachableError(_why(address, error)) from None


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _why(address: str, error: BaseException) -> str:
    """The innermost reason, in words."""
    parts = urlsplit(address)
    host = parts.hostname or "the address"
    chain = _chain(error)
    if any(isinstance(e, requests.exceptions.ProxyError) for e in chain):
        return (
            f"the proxy of HTTP_PROXY or HTTPS_PROXY did not let us through to {host}; add {host} to NO_PROXY"
        )
    for e in chain:
        if isinstance(e, ssl.SSLError):
            reason = getattr(e, "verify_message", "") or e.reason or "no agreement on encryption"
            return f"https to {host} failed: {reason}; {advice(str(error)) or 'check label_studio.ca_file'}"
        if isinstance(e, socket.gaierror):
            return f"there is no host named {host}; check its spelling, and that this machine's DNS knows it"
        if isinstance(e, ConnectionRefusedError):
            return f"nothing listens at {parts.netloc}; start it, or correct host and port"
        if isinstance(e, requests.exceptions.Timeout | TimeoutError):
            return (
                f"{parts.netloc} does not answer in time; a firewall may be in between, or it is overloaded"
            )
    return (
        f"{parts.netloc} ended the connection without an answer ({type(error).__name__}); check the address, and "
        "whether it is http or https"
    )


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, innermost first."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None:
        found.insert(0, at)
        at = at.__cause__ or at.__context__
    return found
