"""A reverse proxy on loopback: below a path, with TLS where wished, and with faults where wished."""

import http.client
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from enum import StrEnum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


class Fault(StrEnum):
    """What goes wrong with one request."""

    REFUSED = auto()
    DROPPED_BEFORE = auto()
    DROPPED_AFTER = auto()
    BAD_GATEWAY_BEFORE = auto()
    UNAVAILABLE_AFTER = auto()
    CUT = auto()
    """The server's answer ends in its middle."""
    ANSWER_LATE = auto()
    """The server works at once; its answer comes when nobody waits for it any more."""
    FORWARDED_LATE = auto()
    """The server begins when nobody waits any more, and perhaps the same was asked for again."""


Choose = Callable[[str, str], Fault | None]
"""(method, path) -> what shall go wrong."""


def well(_method: str, _path: str) -> None:
    """Nothing goes wrong."""


def at_random(seed: int, share: float) -> Choose:
    """A fault for about `share` of the requests; late ones are rarer, since each takes a timeout."""
    rng, lock = random.Random(seed), threading.Lock()
    quick = [f for f in Fault if f not in (Fault.ANSWER_LATE, Fault.FORWARDED_LATE)]
    kinds = [*quick, *quick, Fault.ANSWER_LATE, Fault.FORWARDED_LATE]

    def choose(_method: str, _path: str) -> Fault | None:
        with lock:
            return rng.choice(kinds) if rng.random() < share else None

    return choose


class ReverseProxy:
    """Gives what `target` gives, below `path`; late means `late_s` seconds. `seen` has every "METHOD /path?query"."""

    def __init__(
        self,
        target: str,
        *,
        path: str = "",
        tls: ssl.SSLContext | None = None,
        choose: Choose = well,
        late_s: float = 1.0,
    ) -> None:
        self.choose = choose
        self.late_s = late_s
        self.seen: list[str] = []
        self.faults: list[Fault] = []
        self._path = path
        self._target = urlsplit(target).netloc
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler(), tls)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}{path}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is late is done first: requests that were taken reach the server."""
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # waits for the threads of all connections

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        self.seen.append(f"{handler.command} {handler.path}")
        fault = self.choose(handler.command, handler.path)
        if fault is not None:
            self.faults.append(fault)
        if fault is Fault.REFUSED:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        match fault:
            case Fault.DROPPED_BEFORE:
                return
            case Fault.BAD_GATEWAY_BEFORE:
                _reply(handler, 502, {}, b"<h1>Bad Gateway</h1>")
                return
            case Fault.FORWARDED_LATE:
                self._ended.wait(self.late_s)
        status, headers, content = self._forward(handler, body)
        match fault:
            case Fault.DROPPED_AFTER:
                return
            case Fault.UNAVAILABLE_AFTER:
                _reply(handler, 503, {}, b"<h1>Service Unavailable</h1>")
                return
            case Fault.ANSWER_LATE:
                self._ended.wait(self.late_s)
            case Fault.CUT:
                headers["Content-Length"] = str(len(content) + 1)
                content = content[: len(content) // 2]
        _reply(handler, status, headers, content)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not handler.path.startswith(self._path + "/"):
            return 404, {}, b"another application lives here"
        sent = {k: v for k, v in handler.headers.items() if k.lower() not in HOP_BY_HOP}
        there = http.client.HTTPConnection(self._target, timeout=60)
        try:
            there.request(handler.command, handler.path.removeprefix(self._path), body or None, sent)
            answer = there.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
            return answer.status, kept, answer.read()
        finally:
            there.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def do_GET(self) -> None:
                try:
                    proxy.answer(self)
                except OSError:  # the client is gone, or the server behind is
                    self.close_connection = True

            do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                """Not on stderr."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(address, handler)
        self._tls = tls

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """In the connection's own thread, where a slow handshake stops nobody else."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(20)
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Refused certificates and clients that went away are what the tests are about."""


def _reply(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers, "Connection": "close"}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
