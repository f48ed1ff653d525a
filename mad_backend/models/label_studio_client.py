"""Label Studio's ML-backend protocol from Label Studio's side, as version 1.23.2 speaks it.

The bodies are the recorded ones, but for the project creator's token, which Label Studio hands to every backend.
"""

import base64
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from mad_backend.errors import ModelError

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 256 << 20
"""A brush mask of 2048 x 1024 pixels has 40 kB; more than this is no answer to one request."""

_TRIES: Final = 4
_CONNECT_TIMEOUT_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 30.0
_PASSING: Final = frozenset({429, 502, 503, 504})
_NOT_THERE: Final = frozenset({404, 405, 501})
_PROJECT: Final = "0.0"
"""Label Studio sends "<id>.<when it was made>", ids from 1; 0 is no project whose state a backend may hold."""


class MlBackendError(ModelError):
    """Raised when an ML backend cannot be reached or refuses; `status` is the HTTP status, None if none came.

    `is_passing`: another try may succeed, not before `pause_s` if the backend says so.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        *,
        is_passing: bool = False,
        pause_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.is_passing = is_passing
        self.pause_s = pause_s


class MlBackendClient:
    """Calls to one ML backend. `credentials` are (user, password) of basic authentication, never in a message."""

    def __init__(
        self,
        url: str,
        label_config: str,
        credentials: tuple[str, str] | None,
        timeout_s: float,
        backoff_s: float,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._url = url.rstrip("/")
        self._label_config = label_config
        self._auth = _Auth(credentials)
        self._timeout_s = timeout_s
        self._backoff_s = backoff_s
        self._max_answer_bytes = max_answer_bytes
        self._session = requests.Session()

    def version(self) -> str | None:
        """`model_version` as /setup says it, else /health; None where neither does. Raises MlBackendError."""
        setup = {
            "project": _PROJECT,
            "schema": self._label_config,
            "hostname": "",
            "access_token": "",
            "extra_params": {},
        }
        for method, path, body in (("POST", "/setup", setup), ("GET", "/health", None)):
            try:
                answer = self._call(method, path, body)
            except MlBackendError as error:
                if error.status not in _NOT_THERE:
                    raise
                continue
            found = answer.get("model_version") if isinstance(answer, Mapping) else None
            if found:
                return str(found)
        return None

    def predict(self, tasks: Sequence[Mapping[str, Any]]) -> list[object]:
        """`results`, one per task in their order; raises MlBackendError, also for another number of them."""
        body = {
            "tasks": list(tasks),
            "project": _PROJECT,
            "label_config": self._label_config,
            "params": {"login": None, "password": None, "context": None},
        }
        answer = self._call("POST", "/predict", body)
        results = answer.get("results") if isinstance(answer, Mapping) else None
        if not isinstance(results, list):
            raise MlBackendError(f'{self._url}/predict: wanted a JSON object with "results", a list')
        if len(results) != len(tasks):
            advice = "; it answers one task at a time: set batch_size: 1" if len(tasks) > 1 else ""
            raise MlBackendError(
                f"{self._url}/predict: {len(tasks)} tasks were sent, {len(results)} results came{advice}"
            )
        return results

    def scrub(self, text: str) -> str:
        """What a backend said, without the credentials."""
        return self._auth.scrub(text)

    def close(self) -> None:
        """Closes kept connections."""
        self._session.close()

    def _call(self, method: str, path: str, body: object) -> Any:
        """Decoded JSON; tried again when the backend is not there or overloaded, a bounded number of times."""
        for tried in range(1, _TRIES + 1):
            try:
                return self._send(method, path, body)
            except MlBackendError as error:
                if tried == _TRIES or not error.is_passing:
                    raise
                wanted_s = self._backoff_s * 2 ** (tried - 1) if error.pause_s is None else error.pause_s
                pause_s = min(max(wanted_s, 0.0), _LONGEST_PAUSE_S)
                log.info("trying again in %.1f s (%s)", pause_s, error)
                time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _send(self, method: str, path: str, body: object) -> Any:
        address = self._url + path
        try:
            # A redirect would turn POST into GET, so it is an error that names the right address.
            with self._session.request(
                method,
                address,
                json=body,
                auth=self._auth,
                timeout=(_CONNECT_TIMEOUT_S, self._timeout_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = self._content(answer, address)
        except requests.ReadTimeout:
            raise MlBackendError(
                f"{address} did not answer within {self._timeout_s:g} s; lower batch_size, or give it more power"
            ) from None
        except requests.RequestException as error:
            raise MlBackendError(
                f"{address} did not answer ({type(error).__name__}); check that the ML backend runs and that the "
                "address is right",
                is_passing=True,
            ) from None
        if not 200 <= answer.status_code < 300:
            raise self._refusal(answer, address, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise MlBackendError(
                f"{address} answered with something that is not JSON; is this the address of an ML backend?"
            ) from None

    def _content(self, answer: requests.Response, address: str) -> bytes:
        parts = []
        left = self._max_answer_bytes
        for part in answer.iter_content(1 << 16):
            left -= len(part)
            if left < 0:
                raise MlBackendError(
                    f"{address} answered with more than {self._max_answer_bytes:,} bytes; lower batch_size"
                )
            parts.append(part)
        return b"".join(parts)

    def _refusal(self, answer: requests.Response, address: str, content: bytes) -> MlBackendError:
        status = answer.status_code
        detail = self._auth.scrub(content.decode(errors="replace").strip() or answer.reason or "")[:400]
        if 300 <= status < 400:
            detail = self._auth.scrub(
                f"sending us to {answer.headers.get('Location')}; set url to where it is"
            )
        elif status in {401, 403}:
            detail = "it wants a user and a password, or other ones: see MAD_MODEL_<NAME>_USER and _PASSWORD"
        return MlBackendError(
            f"{address} answered {status}: {detail}",
            status,
            is_passing=status in _PASSING,
            pause_s=_seconds(answer.headers.get("Retry-After")),
        )


def credentials(name: str, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """(user, password) of a model from MAD_MODEL_<NAME>_USER and _PASSWORD, None without them.

    NAME is the model's name in capitals, what is no letter or digit as "_". Raises ModelError for one without the
    other.
    """
    prefix = f"MAD_MODEL_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"
    user, password = environment.get(f"{prefix}_USER"), environment.get(f"{prefix}_PASSWORD")
    if user is None and password is None:
        return None
    if user is None or password is None:
        raise ModelError(f'model "{name}": set both {prefix}_USER and {prefix}_PASSWORD, or none of them')
    return user, password


def checked_url(name: str, url: str | None) -> str:
    """`url`, if it is a plain address; else raises ModelError, without repeating it, since a password may be in it."""
    parts = urlsplit(url or "")
    if parts.scheme not in {"http", "https"} or not parts.netloc or "@" in parts.netloc or parts.query:
        raise ModelError(
            f'model "{name}": url must be http://host:port or https://host, without user, password and query; '
            "secrets belong into the environment"
        )
    return parts.geturl()


class _Auth(AuthBase):
    """Basic authentication or none; being given, it keeps requests from asking ~/.netrc."""

    def __init__(self, credentials: tuple[str, str] | None) -> None:
        self._basic: HTTPBasicAuth | None = None
        self._secrets: tuple[str, ...] = ()
        if credentials is not None:
            user, password = credentials
            self._basic = HTTPBasicAuth(user.encode(), password.encode())
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._secrets = tuple(secret for secret in (pair, password, user) if secret)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return self._basic(request) if self._basic else request

    def scrub(self, text: str) -> str:
        """`text` without the credentials, should a server ever echo them."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header, which gives a number or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
        return (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except ValueError:
        return None
