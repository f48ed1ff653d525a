"""Pictures for browsers that show tasks of Label Studio (media: serve)."""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, abort, request

from mad_backend.pictures import PictureFolder

log = logging.getLogger(__name__)

_MAX_AGE_S: Final = 3600
"""After an hour browsers ask again, and are told that nothing changed."""
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_TOLD: Final = 20


def media(folder: PictureFolder, label_studio: Iterable[str]) -> Blueprint:
    """The route /pictures; scripts of pages at the addresses `label_studio` may read what it gives, others may not.

    Label Studio draws photos on a canvas, for which browsers want that leave (CORS).
    """
    routes = Blueprint("media", __name__)
    allowed = frozenset(origin for address in label_studio for origin in origins(address))
    strangers: set[str] = set()

    @routes.get("/pictures/<name>")
    def picture(name: str) -> Response:
        file = folder.find(name, request.args.get("s", ""))
        if file is None:
            abort(404)
        try:
            answer = _answer(file)
        except FileNotFoundError:  # deleted a moment ago
            abort(404)
        _warn_once(request.origin, allowed, strangers)
        answer.make_conditional(request, accept_ranges=True, complete_length=answer.content_length)
        return answer

    @routes.after_request
    def with_leave(answer: Response) -> Response:
        answer.vary.add("Origin")
        answer.headers["X-Content-Type-Options"] = "nosniff"
        origin = request.origin
        if origin in allowed:
            answer.access_control_allow_origin = origin
            if request.method == "OPTIONS":
                answer.headers["Access-Control-Allow-Methods"] = "GET, HEAD"
                # Error reporting, where a team has it in Label Studio, adds headers to every request.
                answer.headers["Access-Control-Allow-Headers"] = "*"
                answer.access_control_max_age = 24 * _MAX_AGE_S
        return answer

    return routes


def origins(address: str) -> frozenset[str]:
    """How browsers name the origin of pages at `address`; names of the own machine stand for each other."""
    parts = urlsplit(address)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    hosts = _LOOPBACK if host in _LOOPBACK else (host,)
    return frozenset(f"{parts.scheme}://{host}{port}" for host in hosts)


def _answer(file: Path) -> Response:
    """Raises FileNotFoundError."""
    # Read and not sent as a file: those stay open after answers without a body (HEAD, 304).
    status, content = file.stat(), file.read_bytes()
    answer = Response(content, content_type="image/jpeg")
    answer.set_etag(f"{status.st_mtime_ns:x}-{len(content):x}")
    answer.last_modified = datetime.fromtimestamp(status.st_mtime, UTC)
    answer.cache_control.private = True
    answer.cache_control.max_age = _MAX_AGE_S
    return answer


def _warn_once(origin: str | None, allowed: frozenset[str], strangers: set[str]) -> None:
    """Says which origin browsers keep pictures from; they themselves only speak of CORS."""
    if origin and origin not in allowed and origin not in strangers and len(strangers) < _TOLD:
        strangers.add(origin)
        log.warning(
            "a page of %.100s asked for a picture, and its browser keeps it from the page, since Label Studio is at "
            "%s; if that page is Label Studio, set label_studio.url to the address that people open",
            origin,
            ", ".join(sorted(allowed)),
        )
