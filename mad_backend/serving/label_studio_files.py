"""The addresses of files that Label Studio gives to whoever is logged in, and leave to ask for them with our token."""

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from mad_backend.errors import ImageError, SettingsError
from mad_backend.network.addresses import Reach, WebAddress
from mad_backend.network.guarded import Permit
from mad_backend.network.servers import check_address, is_below
from mad_backend.network.tls import Certificates
from mad_backend.network.tokens import token_for
from mad_backend.settings import Secrets, Settings

_UPLOADS: Final = "/data/upload/"
_LOCAL_FILES: Final = "/data/local-files/"
_PARAMETERS: Final = (
    (re.compile(r"/data/local-files/?"), "d"),
    (re.compile(r"/(tasks|projects)/[0-9]{1,18}/(resolve|presign)/?"), "fileuri"),
    (re.compile(r"/storage-data/uploaded/?"), "filepath"),
)
"""Paths that name a file by a parameter (Label Studio's io_storages/urls.py and data_import/urls.py)."""
_TRICKS: Final = re.compile(r"%(2e|2f|5c|00)|[\\\x00-\x1f\x7f]", re.IGNORECASE)
"""What servers, and the proxies before them, read in different ways."""


class LabelStudioFiles:
    """Only these are asked for with the token: a task chose the address, and the token may do anything.

    Raises SettingsError where the address of Label Studio is none, or a certificate cannot be read.
    """

    def __init__(self, settings: Settings, secrets: Secrets) -> None:
        given = settings.label_studio
        self.url = (secrets.label_studio_url or given.url).rstrip("/")
        check_address(self.url)
        try:
            WebAddress.of(self.url)
        except ValueError as error:
            raise SettingsError(f"label_studio.url (or MAD_LABEL_STUDIO_URL) {error}") from None
        self._base = urlsplit(self.url).path
        certificates = Certificates(given.ca_file, given.client_cert, given.verify)
        self._context = certificates.context(own=True)
        token = secrets.label_studio_token.get_secret_value().strip() if secrets.label_studio_token else None
        timeout_s = settings.serve.images.timeout_s
        self._token = token_for(self.url, token, timeout_s, certificates) if token else None

    def find(self, address: str) -> str | None:
        """Path and query, below the server's own path, of a file that `address` (or a path) names; None: of no file."""
        path = address
        if not path.startswith("/"):
            if not is_below(address, self.url) or "@" in urlsplit(address).netloc:
                return None
            path = "/" + address.partition("://")[2].partition("/")[2]
        if path.startswith(f"{self._base}/"):
            path = path.removeprefix(self._base)
        path, _, query = path.partition("#")[0].partition("?")
        if _TRICKS.search(path) or _TRICKS.search(unquote(path)):
            return None
        path = unquote(path)
        if path.startswith(_UPLOADS):
            return quote(path) if _is_plain(path.removeprefix(_UPLOADS)) else None
        for pattern, parameter in _PARAMETERS:
            if pattern.fullmatch(path):
                name = dict(parse_qsl(query)).get(parameter, "")
                is_file = _is_plain(name.strip("/")) or parameter == "fileuri"
                is_named = name and is_file and not _TRICKS.search(name)
                return f"{path.rstrip('/')}/?{parameter}={quote(name)}" if is_named else None
        return None

    def web_address(self, file: str) -> WebAddress:
        """Of what `find` has found."""
        return WebAddress.of(self.url + file)

    def permit(self, address: WebAddress, what: str) -> Permit | None:
        """None unless it is a file of the server; raises ImageError, beginning with `what`, without a token."""
        file = self.find(address.url)
        if file is None or self.web_address(file) != address:
            return None
        if self._token is None:
            raise ImageError(
                f"{what}: Label Studio gives it to nobody without a token; set MAD_LABEL_STUDIO_TOKEN"
            )
        return Permit(Reach.PRIVATE, self._context, self._token)


def local_name(file: str) -> str | None:
    """Of a file in Label Studio's local storage, its name there ("photos/1.jpg"); None if it lies elsewhere."""
    path, _, query = file.partition("?")
    return dict(parse_qsl(query))["d"].lstrip("/") if path == _LOCAL_FILES else None


def _is_plain(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/"))
