"""Which certificates are trusted and shown when talking to Label Studio, and what their errors mean."""

import logging
import os
import ssl
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from requests import Session
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.exceptions import InsecureRequestWarning
from urllib3.util.ssl_ import create_urllib3_context

from mad_backend.errors import SettingsError
from mad_backend.network.prompt import PromptAdapter

log = logging.getLogger(__name__)

_SECTION: Final = "label_studio"
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_ADVICE: Final = (
    ("wrong_version_number", "nothing encrypted is spoken there: write http:// in label_studio.url"),
    ("record_layer_failure", "nothing encrypted is spoken there: write http:// in label_studio.url"),
    ("http request to", "only https is spoken there: write https:// in label_studio.url"),
    ("required ssl certificate", "the server wants a client certificate: set label_studio.client_cert"),
    ("ssl certificate error", "the client certificate was refused: check label_studio.client_cert"),
    ("hostname mismatch", "the certificate is for another name: use that name in label_studio.url"),
    ("ip address mismatch", "the certificate is for another address: use a name of it in label_studio.url"),
    ("certificate has expired", "the server's certificate has expired: renew it there"),
    (
        "certificate_verify_failed",
        "set label_studio.ca_file to the certificate (PEM) of the authority behind it",
    ),
    ("alert", "the server refuses our certificate, or misses one: set label_studio.client_cert"),
    ("eof occurred", "it hung up while certificates were shown: check label_studio.client_cert"),
)
"""Words of OpenSSL's and nginx's messages -> which setting cures it; the first that fits."""


@dataclass(frozen=True)
class Certificates:
    """`ca_file` and `client_cert` are those of the settings, read once, when this is made.

    `verify` False accepts any certificate. Raises SettingsError, naming the key.
    """

    ca_file: Path | None = None
    client_cert: Path | None = None
    verify: bool = True
    _own: ssl.SSLContext = field(init=False, repr=False, compare=False)
    _strangers: ssl.SSLContext = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_strangers", self._trusting())
        own = self._trusting()
        if self.client_cert is not None:
            _show(own, self.client_cert)
        object.__setattr__(self, "_own", own)
        if not self.verify:
            log.warning("label_studio.verify is false: any certificate is accepted, so anybody may listen")
            warnings.simplefilter("ignore", InsecureRequestWarning)  # one for each request

    def prepare(self, session: Session, *, own: bool) -> Session:
        """Lets `session` use them; the client certificate only where it is for our own server."""
        session.mount("https://", _Adapter(self._own if own else self._strangers))
        session.mount("http://", PromptAdapter())
        return session

    def context(self, *, own: bool) -> ssl.SSLContext:
        """As `prepare`, for connections that are made without a session; knows the usual certificates by itself.

        Raises SettingsError.
        """
        context = self._trusting()
        if own and self.client_cert is not None:
            _show(context, self.client_cert)
        # Where a session looks for them.
        usual = next((os.environ[n] for n in _BUNDLES if os.environ.get(n)), DEFAULT_CA_BUNDLE_PATH)
        try:
            context.load_verify_locations(**{"capath" if Path(usual).is_dir() else "cafile": usual})
        except OSError as error:
            raise SettingsError(
                f"{' or '.join(_BUNDLES)}: {usual} holds no certificates: {error.strerror}"
            ) from None
        return context

    def _trusting(self) -> ssl.SSLContext:
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if self.verify else ssl.CERT_NONE)
        if self.ca_file is not None:
            _readable("ca_file", self.ca_file)
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except ssl.SSLError:
                raise SettingsError(
                    f"{_SECTION}.ca_file: {self.ca_file} holds no certificate in PEM"
                ) from None
        return context


class _Adapter(HTTPAdapter):
    """Adds what `context` trusts to the usual certificates (requests alone would put it in their place)."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)


def advice(text: str) -> str | None:
    """Which setting cures the error that `text` tells of; None if it is not about certificates."""
    lowered = text.lower()
    if "ssl" not in lowered and "certificate" not in lowered and "https" not in lowered:
        return None
    return next(
        (cure for words, cure in _ADVICE if words in lowered.replace(" ", "_") or words in lowered), None
    )


def _show(context: ssl.SSLContext, path: Path) -> None:
    _readable("client_cert", path)

    def no_password() -> str:
        raise SettingsError(f"{_SECTION}.client_cert: the key in {path} has a password; store it without one")

    try:
        context.load_cert_chain(path, password=no_password)
    except ssl.SSLError:
        raise SettingsError(
            f"{_SECTION}.client_cert: {path} must hold a certificate and the key that belongs to it, both in PEM"
        ) from None


def _readable(key: str, path: Path) -> None:
    """OpenSSL does not say which file it was, and why."""
    try:
        path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{_SECTION}.{key}: cannot read {path}: {error.strerror}") from None
