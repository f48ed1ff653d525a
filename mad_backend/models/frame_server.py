"""Serves frames over HTTP to a model that runs elsewhere, each at an address nobody can guess, while it is needed."""

import io
import logging
import secrets
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Final

from PIL import Image

from mad_backend.core.labels import RgbImage

log = logging.getLogger(__name__)

_POLL_S: Final = 0.05
_SLOW_READER_S: Final = 30.0


@dataclass
class OfferedFrame:
    """A frame as a PNG under its address, and whether somebody has fetched it."""

    address: str
    png: bytes
    was_fetched: bool = False


class FrameServer:
    """Listens on a free port of `host` until it is closed; answers 404 but for what is being offered."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        server = _Server((host, 0), _Handler)
        thread = Thread(target=server.serve_forever, args=(_POLL_S,), name="frame server", daemon=True)
        thread.start()
        self.origin = f"http://{host}:{server.server_port}"
        self._offers = server.offers
        self._stop = weakref.finalize(self, _stop, server, thread)

    @contextmanager
    def offering(self, pictures: Sequence[RgbImage]) -> Iterator[list[OfferedFrame]]:
        """The pictures under new addresses, which end with the `with` block."""
        offers = {f"/{secrets.token_urlsafe(24)}.png": _png(rgb) for rgb in pictures}
        offered = {path: OfferedFrame(self.origin + path, png) for path, png in offers.items()}
        self._offers.update(offered)
        try:
            yield list(offered.values())
        finally:
            for path in offered:
                del self._offers[path]

    def close(self) -> None:
        """Stops listening; safe to repeat."""
        self._stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.offers: dict[str, OfferedFrame] = {}
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that goes away must not write to the terminal."""
        log.info("a frame was not fetched to its end", exc_info=True)  # noqa: LOG014 - called while one is handled


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SLOW_READER_S

    def do_GET(self) -> None:
        offer = self._answer_head()
        if offer is not None:
            offer.was_fetched = True  # Set first: the reader may be done before this thread goes on.
            self.wfile.write(offer.png)

    def do_HEAD(self) -> None:
        self._answer_head()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Says nothing: addresses are secrets, and there is one request an image."""

    def _answer_head(self) -> OfferedFrame | None:
        offer = self.server.offers.get(self.path.partition("?")[0])
        if offer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(offer.png)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        return offer


def _stop(server: _Server, thread: Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()


def _png(rgb: RgbImage) -> bytes:
    file = io.BytesIO()
    # Not compressed: over loopback time counts and bytes do not (513 x 385: 10 ms to write and read, 17 ms at level 1).
    Image.fromarray(rgb).save(file, format="PNG", compress_level=0)
    return file.getvalue()
