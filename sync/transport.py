"""One HTTP call to Label Studio: token, certificates, timeout, retries, and errors that say what to do."""

from collections.abc import Callable, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from mad_backend.errors import LabelStudioError
from mad_backend.network.servers import is_below
from mad_backend.network.tls import Certificates, advice
from mad_backend.network.tokens import no_auth, token_for
from sync.patience import Patience

Answer = TypeVar("Answer")

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
    """Calls under one base address, which may have a path, with one token; only GET is tried again.

    `token` is a legacy token, or a personal access token (a JWT), from which short-lived access tokens are
    drawn. Several threads may share it.
    """

    def __init__(
        self, url: str, token: str, timeout_s: float, backoff_s: float, certificates: Certificates
    ) -> None:
        self.url = url.rstrip("/")
        self.path = urlsplit(self.url).path
        self.backoff_s = backoff_s
        self._timeout_s = timeout_s
        self._verify = certificates.verify
        self._session = certificates.prepare(requests.Session(), own=True)
        self._strangers = certificates.prepare(requests.Session(), own=False)
        self._strangers.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._token = token_for(self.url, token, timeout_s, certificates)

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    def call(self, method: str, path: str, wanted: str, **options: Any) -> Any:
        """Decoded JSON answer (None when empty); `wanted` says in errors what the call was for.

        `options` are those of `requests.request`. Raises LabelStudioError; its `status` is None if no answer
        came.
        """
        tries = _TRIES if method == "GET" else 1
        return self._tried(tries, wanted, lambda: self._send(method, path, wanted, options))

    def download(self, address: str, wanted: str, limit: int) -> bytes:
        """The bytes of a file of the server, at most `limit`; `address` as tasks have it, or below the base address.

        The server may send us on, to a store for instance; the token never goes to another host, nor to a
        neighbour outside of the base address's path. Raises LabelStudioError.
        """
        return self._tried(_TRIES, wanted, lambda: self._fetch(self.absolute(address), wanted, limit))

    def exists(self, address: str, wanted: str) -> bool:
        """True if the server still gives the file; Label Studio 1.23.2 answers 500 for one that was deleted."""
        whole = self.absolute(address)
        if not is_below(whole, self.url):
            raise LabelStudioError(f"{wanted}: {address} is no file of {self.url}", 400)
        answer = self._tried(_TRIES, wanted, lambda: self._answer("GET", whole, wanted, {"stream": True}))
        with answer:
            if answer.status_code in (401, 403, 429) or answer.status_code > 500:
                raise self._error(answer, wanted)
            return answer.status_code < 400

    def sent_on(self, address: str, wanted: str) -> str | None:
        """Where the server sends whoever asks for the file; None: it gives the file itself. Raises LabelStudioError."""
        where, options = self.absolute(address), {"stream": True}
        with self._tried(_TRIES, wanted, lambda: self._answer("GET", where, wanted, options)) as answer:
            if answer.status_code >= 400:
                raise self._error(answer, wanted)
            return urljoin(where, answer.headers["Location"]) if answer.is_redirect else None

    def absolute(self, address: str) -> str:
        """Of a path below the base address, of one that begins with the base address's own, or of a whole address."""
        if address.startswith(("http://", "https://")):
            return address
        path = "/" + address.lstrip("/")  # "@host/x" behind the server's name would name another host
        return self.url + (path.removeprefix(self.path) if path.startswith(self.path + "/") else path)

    def _tried(self, tries: int, wanted: str, work: Callable[[], Answer]) -> Answer:
        patience = Patience(tries, self.backoff_s)
        while True:
            try:
                return work()
            except LabelStudioError as error:
                patience.wait(wanted, error)

    def _send(self, method: str, path: str, wanted: str, options: Mapping[str, Any]) -> Any:
        answer = self._answer(method, self.url + path, wanted, options)
        if not 200 <= answer.status_code < 300:
            raise self._error(answer, wanted)
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

    def _answer(
        self, method: str, address: str, wanted: str, options: Mapping[str, Any]
    ) -> requests.Response:
        """As `_request`, once more with another access token if this one is no longer taken."""
        answer = self._request(method, address, wanted, options)
        if answer.status_code == 401 and self._token.renew():
            answer.close()
            answer = self._request(method, address, wanted, options)
        return answer

    def _fetch(self, address: str, wanted: str, limit: int) -> bytes:
        for _ in range(_HOPS):
            if is_below(address, self.url):
                answer = self._answer("GET", address, wanted, {"stream": True})
            else:
                answer = self._stranger(address, wanted)
            with answer:
                if answer.is_redirect:
                    address = urljoin(address, answer.headers["Location"])
                    continue
                if answer.status_code != 200:
                    raise self._error(answer, wanted)
                return self._content(answer, wanted, limit)
        raise LabelStudioError(f"{wanted}: Label Studio at {self.url} sends us round in circles", 310)

    def _stranger(self, address: str, wanted: str) -> requests.Response:
        """From a host that the server named; without token, client certificate, cookies or ~/.netrc."""
        try:
            return self._strangers.get(
                address,
                auth=no_auth,
                stream=True,
                allow_redirects=False,
                timeout=(_CONNECT_TIMEOUT_S, self._timeout_s),
                verify=self._verify,
            )
        except requests.RequestException as error:
            host = urlsplit(address).netloc.rpartition("@")[2]
            cure = advice(str(error))
            raise LabelStudioError(
                f"{wanted}: Label Studio at {self.url} sends us to {host}, which did not answer "
                f"({type(error).__name__}){f'; {cure}' if cure else ''}"
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
                verify=self._verify,
                **options,
            )
        except LabelStudioError as error:  # while drawing an access token
            raise LabelStudioError(
                f"{wanted}: Label Studio at {self.url}: {self._token.scrub(str(error))}", error.status
            ) from None
        except requests.RequestException as error:
            cure = advice(str(error))
            raise LabelStudioError(
                f"{wanted}: Label Studio at {self.url} did not answer ({type(error).__name__}); "
                + (cure or "check that it runs, that the address is right, and that it is not overloaded")
            ) from None

    def _error(self, answer: requests.Response, wanted: str) -> LabelStudioError:
        return LabelStudioError(self._token.scrub(self._refusal(answer, wanted)), answer.status_code)

    def _refusal(self, answer: requests.Response, wanted: str) -> str:
        detail, status = _detail(answer), answer.status_code
        said = f"{wanted}: Label Studio at {self.url} answered {status}"
        if 300 <= status < 400:
            return f"{said}, sending us to {answer.headers.get('Location')}; set the address to where it really is"
        cure = _cure(status, detail, answer)
        return f"{said} ({detail}){f'; {cure}' if cure else ''}"


def _cure(status: int, detail: str, answer: requests.Response) -> str | None:
    """What to do about a refusal, where it is known."""
    match status:
        case 400:
            return advice(answer.text[:2000])
        case 401 if "legacy token" in detail.lower():
            return (
                "legacy tokens are switched off there; use a personal access token (Account & Settings), or switch "
                "legacy tokens on (Organization > API Tokens Settings)"
            )
        case 401:
            return "the token is wrong or revoked: copy it again from Account & Settings"
        case 403 if "reserved network address" in detail:
            return _SSRF_ADVICE
        case 413:
            return "let the proxy in front of it take more (client_max_body_size of nginx)"
    return "its own log tells why" if status >= 500 else None


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
