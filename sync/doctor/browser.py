"""What a browser that shows a task of Label Studio makes of a picture's address."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from mad_backend.errors import MadError
from sync.doctor.situation import Situation, origin_of
from sync.doctor.visits import Answer

_HOPS: Final = 5
_LIMIT: Final = 2**26
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class NotShownError(MadError):
    """Raised where a browser would show nothing; behind the semicolon, what to do."""


@dataclass(frozen=True)
class Shown:
    """What the browser gets; `kind` is its content type, None where Label Studio itself answered."""

    address: str
    content: bytes
    kind: str | None


def show(at: Situation, address: str, cors_cure: str) -> Shown:
    """`address` as Label Studio's page has it; `cors_cure` ends the message where the page may not read the picture.

    Label Studio's pages draw pictures on a canvas: they ask for them with scripts, without cookies for other hosts.
    Raises NotShownError, UnreachableError or LabelStudioError.
    """
    page = origin_of(at.settings.label_studio.url)
    where = urljoin(f"{page}/", address)
    if origin_of(where) in (page, origin_of(at.url)):
        onward = at.client.sent_on(address)
        if onward is None:
            return Shown(where, at.client.download(address, _LIMIT), None)
        where = onward
    sent_as = page
    for _ in range(_HOPS):
        _check_reach(page, where)
        answer = at.visitor.get(where, {"Origin": sent_as})
        shown = where.partition("?")[0]
        if answer.status == 200:
            _check_leave(answer, sent_as, shown, cors_cure)
            return Shown(shown, answer.content, answer.headers.get("content-type"))
        if answer.status not in _REDIRECTS:
            raise NotShownError(f"{shown} answers {answer.status}; {_why(answer.status, cors_cure)}")
        _check_leave(answer, sent_as, shown, cors_cure)
        onward = urljoin(where, answer.headers.get("location", ""))
        if origin_of(onward) != origin_of(where):
            # Fetch standard, 4.4: sent on by a host that is not the page's own, a request no longer tells its origin.
            sent_as = "null"
        where = onward
    raise NotShownError(f"{address.partition('?')[0]} is sent round in circles; {cors_cure}")


def _check_reach(page: str, where: str) -> None:
    """What a browser refuses, or cannot reach, before it has asked."""
    shown, host = where.partition("?")[0], urlsplit(where).hostname or ""
    if urlsplit(where).scheme not in ("http", "https"):
        raise NotShownError(
            f"browsers cannot ask for {shown}: the project has no storage record that resolves it; "
            "set label_studio.cloud, and push again"
        )
    if host in _LOOPBACK and urlsplit(page).hostname not in _LOOPBACK:
        raise NotShownError(
            f"{shown} is an address of each browser's own machine; set serve.public_url to one that browsers reach"
        )
    if page.startswith("https:") and where.startswith("http:") and host not in _LOOPBACK:
        raise NotShownError(
            f"{shown} is http, and browsers load nothing insecure into pages of {page}; give pictures an https address"
        )


def _check_leave(answer: Answer, sent_as: str, shown: str, cure: str) -> None:
    """The answer must let the page read it (CORS)."""
    given = answer.headers.get("access-control-allow-origin")
    if given in ("*", sent_as):
        return
    told = f"allows pages of {given} only" if given else "sends no Access-Control-Allow-Origin"
    raise NotShownError(f"{shown} {told}, so pages of {sent_as} may not read it; {cure}")


def _why(status: int, cure: str) -> str:
    if status in (401, 403):
        return "let everybody who has the address read it: browsers send neither token nor cookie there"
    if status == 404:
        return "check that `mad serve` uses this settings file, or that the picture is there"
    return cure
