"""A file from a web server that somebody else has named: asked only where a judge lets us, and read within limits."""

import io
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import urljoin

from requests import Request

from mad_backend.errors import ImageError, LabelStudioError
from mad_backend.network.addresses import Reach, WebAddress, reach_of
from mad_backend.network.tls import advice
from mad_backend.network.tokens import LegacyToken

_HOPS: Final = 5
_BLOCK: Final = 2**16
_CONNECT_TIMEOUT_S: Final = 5.0
_SENT_ON: Final = (301, 302, 303, 307, 308)

Resolver: TypeAlias = Callable[..., Sequence[tuple[Any, ...]]]
"""`socket.getaddrinfo`, or what answers as it does."""


@dataclass(frozen=True)
class Permit:
    """Leave to ask a host: how near it may be, what its certificate is checked by, and the token it is shown."""

    reach: Reach
    certificates: ssl.SSLContext
    token: LegacyToken | None = None


Judge: TypeAlias = Callable[[WebAddress], Permit]
"""Decides on an address, and on every further one that servers send us on to; raises ImageError for no."""


class GuardedWeb:
    """May be used by many threads.

    Nothing of the environment is heeded: a proxy would resolve names by itself, behind the back of the check, and
    ~/.netrc would send logins to hosts that strangers chose. There are no cookies.
    """

    def __init__(self, max_bytes: int, timeout_s: float, resolve: Resolver = socket.getaddrinfo) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve

    def fetch(self, address: WebAddress, judge: Judge, what: str) -> bytes:
        """The bytes of the file, redirects followed; `what` begins the message of the ImageError of every failure."""
        ask, place = _Question(self._max_bytes, self._timeout_s, self._resolve, what), address
        for _ in range(1 + _HOPS):
            permit = judge(place)
            answer = ask.get(place, permit)
            if isinstance(answer, tuple) and answer[0] == 401 and permit.token and permit.token.renew():
                answer = ask.get(place, permit)
            if isinstance(answer, bytes):
                return answer
            status, location = answer
            if location is None:
                is_token = permit.token is not None and status in (401, 403)
                cure = "; check the token, MAD_LABEL_STUDIO_TOKEN" if is_token else ""
                raise ImageError(f"{what}: {place.netloc} answered {status}{cure}")
            try:
                place = WebAddress.of(urljoin(place.url, location))
            except ValueError as error:
                raise ImageError(f"{what}: {place.netloc} sends us to an address that {error}") from None
        raise ImageError(f"{what}: {address.netloc} sends us on more than {_HOPS} times")


class _Question:
    """One image; the time for it runs from here."""

    def __init__(self, max_bytes: int, timeout_s: float, resolve: Resolver, what: str) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve
        self._what = what
        self._ends = time.monotonic() + timeout_s

    def get(self, place: WebAddress, permit: Permit) -> bytes | tuple[int, str | None]:
        """The content, or the status and where we are sent on."""
        own = {
            "Host": place.netloc,
            "Accept-Encoding": "identity",
            "User-Agent": "mad",
            "Connection": "close",
        }
        try:
            # For its headers alone: the token is of the kind that requests knows. Before we connect: an access
            # token may have to be drawn, and a server with one thread would wait for us meanwhile.
            prepared = Request("GET", place.url, headers=own, auth=permit.token).prepare()
            with closing(self._connect(place, permit)) as channel:
                connection = HTTPConnection(place.host, place.port)
                connection.sock = _Timed(channel, self._ends)
                connection.request("GET", place.target, headers=dict(prepared.headers))
                with closing(connection.getresponse()) as answer:
                    if answer.status == 200:
                        return self._content(answer, place)
                    location = answer.getheader("Location") if answer.status in _SENT_ON else None
                    return answer.status, location
        except LabelStudioError as error:  # while an access token was drawn
            self._fail(str(error))
        except ssl.SSLError as error:
            cure = advice(str(error)) if permit.token else None
            reason = getattr(error, "verify_message", None) or error.reason
            self._fail(f"no secure connection to {place.netloc}: {reason}{f'; {cure}' if cure else ''}")
        except (OSError, HTTPException) as error:
            # What a server sent may stand in the error: its class alone is told.
            self._fail(f"{place.netloc} did not answer, or broke off ({type(error).__name__})")

    def _connect(self, place: WebAddress, permit: Permit) -> socket.socket:
        """To one of the host's addresses, all of which are checked; no name is resolved again."""
        found = self._addresses(place, permit)
        for number, (family, kind, protocol, _, where) in enumerate(found, start=1):
            try:
                channel = socket.socket(family, kind, protocol)
                with ExitStack() as unless_connected:
                    unless_connected.callback(channel.close)
                    channel.settimeout(min(_CONNECT_TIMEOUT_S, _left(self._ends)))
                    channel.connect(where)
                    if place.scheme == "https":
                        channel.settimeout(_left(self._ends))
                        name = place.host.rstrip(".")
                        channel = permit.certificates.wrap_socket(channel, server_hostname=name)
                    unless_connected.pop_all()
                    return channel
            except OSError as error:
                if number == len(found) or isinstance(error, ssl.SSLError):
                    raise
        raise AssertionError("the last try returns or raises")

    def _addresses(self, place: WebAddress, permit: Permit) -> Sequence[tuple[Any, ...]]:
        try:
            found = self._resolve(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            found = ()
        if not found:
            self._fail(f"the name {place.host} is not known")
        for *_, where in found:
            reach = reach_of(str(where[0]))
            if reach is Reach.NEVER:
                self._fail(f"{place.host} is at {where[0]}, which is never asked (link-local, reserved, ...)")
            if reach > permit.reach:
                self._fail(
                    f"{place.host} is at {where[0]}, a private address; only hosts of serve.images.private_hosts may "
                    "have one"
                )
        return found

    def _content(self, answer: HTTPResponse, place: WebAddress) -> bytes:
        coding = answer.getheader("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            # Unpacked, little can become a lot; image formats are packed already.
            self._fail(f"{place.netloc} sends it packed ({coding!r:.20}), though asked not to")
        wanted = answer.length
        if wanted is not None and wanted > self._max_bytes:
            self._fail(f"it has {wanted:,} bytes; serve.images.max_bytes is {self._max_bytes:,}")
        content = bytearray()
        while block := answer.read1(_BLOCK):
            content += block
            if len(content) > self._max_bytes:
                self._fail(f"it has more than {self._max_bytes:,} bytes, which is serve.images.max_bytes")
        if wanted is not None and len(content) < wanted:
            self._fail(f"{place.netloc} broke off after {len(content):,} of {wanted:,} bytes")
        if not content:
            self._fail(f"{place.netloc} sent nothing")
        return bytes(content)

    def _fail(self, reason: str) -> NoReturn:
        if time.monotonic() >= self._ends:
            reason = f"it took longer than serve.images.timeout_s ({self._timeout_s:g} s)"
        raise ImageError(f"{self._what}: {reason}") from None


class _Timed:
    """What `http.client` uses of a socket; all of it together ends at `ends`, however slowly bytes drip."""

    def __init__(self, channel: socket.socket, ends: float) -> None:
        self._channel = channel
        self._ends = ends

    def sendall(self, data: bytes) -> None:
        self._channel.settimeout(_left(self._ends))
        self._channel.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._channel, self._ends), _BLOCK)

    def close(self) -> None:
        """Nothing: the channel is closed by who opened it, since `http.client` does so before it reads the content."""


class _TimedReader(io.RawIOBase):
    def __init__(self, channel: socket.socket, ends: float) -> None:
        self._channel = channel
        self._ends = ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._channel.settimeout(_left(self._ends))
        return self._channel.recv_into(buffer)


def _left(ends: float) -> float:
    """Seconds; raises TimeoutError if there are none."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
