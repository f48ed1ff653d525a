"""Bytes of the images that tasks name, as far as settings allow them to be fetched."""

import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from mad_backend.errors import ImageError
from mad_backend.network.addresses import HostRules, WebAddress
from mad_backend.network.guarded import GuardedWeb, Permit, Resolver
from mad_backend.network.tls import Certificates
from mad_backend.pictures import PictureFolder
from mad_backend.pool.files import read_bytes, shown
from mad_backend.serving.label_studio_files import LabelStudioFiles, local_name
from mad_backend.settings import Secrets, Settings

_LONGEST: Final = 8192
"""Characters; what is signed by a cloud with a session's token has some 2000."""
_SHOWN: Final = 200
_PICTURES: Final = "/pictures/"
_ELSEWHERE: Final = {"azure-blob": "az"}
"""Label Studio's schemes that fsspec calls otherwise."""


class TaskImageReader:
    """May be used by many threads; `sign` is the store's, for pictures of our own (`store.remote.sign`).

    Raises SettingsError where a host in serve.images, or the address of Label Studio, is none.
    """

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        sign: Callable[[str], str],
        resolve: Resolver = socket.getaddrinfo,
    ) -> None:
        given, cloud = settings.serve.images, settings.label_studio.cloud
        endpoints = (cloud and cloud.endpoint_url, given.storage_options.get("endpoint_url"))
        stores = [rule for endpoint in endpoints if endpoint for rule in _store_rules(str(endpoint))]
        self._given = given
        self._web = GuardedWeb(given.max_bytes, given.timeout_s, resolve)
        self._rules = HostRules(given.hosts, given.private_hosts)
        self._rules_behind = HostRules(given.hosts, (*given.private_hosts, *stores))
        self._certificates = Certificates(settings.label_studio.ca_file).context(own=False)
        self._label_studio = LabelStudioFiles(settings, secrets)
        local_files = settings.label_studio.local_files
        self._local_files = local_files.root if local_files else None
        self._pictures = PictureFolder(settings.pictures, sign)
        self._public_url = settings.serve.public_url

    def read(self, address: str) -> bytes:
        """The bytes of an image file, at most serve.images.max_bytes of them.

        Raises ImageError naming the address, without login and query, and the setting that would allow it; PoolError or
        MissingRuntimeError where a store of serve.images.places cannot be reached or read.
        """
        address = address.strip()
        what = f"image {_named(address)}"
        if len(address) > _LONGEST or not address.isprintable():
            raise ImageError(f"{what}: an address has at most {_LONGEST} characters, none of them invisible")
        file = self._label_studio.find(address)
        if file is not None:
            return self._of_label_studio(file, f"image {_cut(file)}")
        if address.startswith("/") and not address.startswith("//"):
            return self._of_this_machine(Path(address), what)
        scheme, is_address, rest = address.partition("://")
        match scheme.lower():
            case "http" | "https" if is_address:
                return self._of_the_web(address, what)
            case "file" if is_address and rest.startswith(("/", "localhost/")):
                return self._of_this_machine(Path(unquote(rest.removeprefix("localhost"))), what)
            case known if is_address:
                return self._of_a_store(f"{_ELSEWHERE.get(known, known)}://{rest}", what)
        raise ImageError(
            f"{what}: wanted a whole address, or an absolute path of Label Studio or this machine"
        )

    def _of_label_studio(self, file: str, what: str) -> bytes:
        name = local_name(file)
        if name is not None and self._local_files is not None:
            path = _inside(self._local_files / name, [self._local_files])
            if path is None:
                raise ImageError(f"{what}: it leads out of label_studio.local_files.root")
            if os.path.exists(path):  # noqa: PTH110 - of a name that is too long, Path would raise
                return read_bytes(path, limit=self._given.max_bytes)

        def judge(place: WebAddress) -> Permit:
            own = self._label_studio.permit(place, what)
            return own or self._permit(place, self._rules_behind, what)

        return self._web.fetch(self._label_studio.web_address(file), judge, what)

    def _of_the_web(self, address: str, what: str) -> bytes:
        pictures = f"{self._public_url}{_PICTURES}"
        if self._public_url and address.startswith(pictures):
            name, _, query = address.removeprefix(pictures).partition("?")
            file = self._pictures.find(name, dict(parse_qsl(query)).get("s", ""))
            if file is None:
                raise ImageError(f"{what}: there is no such picture, or its signature is not ours")
            return read_bytes(file, limit=self._given.max_bytes)
        try:
            place = WebAddress.of(address)
        except ValueError as error:
            raise ImageError(f"{what}: the address {error}") from None
        return self._web.fetch(place, lambda hop: self._permit(hop, self._rules, what), what)

    def _permit(self, place: WebAddress, rules: HostRules, what: str) -> Permit:
        reach = rules.reach(place)
        if reach is None:
            raise ImageError(
                f"{what}: {place.netloc} is not allowed by serve.images.hosts (or private_hosts, if it is in a network "
                "of your own), nor is it a file of Label Studio at label_studio.url"
            )
        return Permit(reach, self._certificates)

    def _of_this_machine(self, path: Path, what: str) -> bytes:
        inside = _inside(path, self._given.roots)
        if inside is None:
            raise ImageError(f"{what}: it is not in a folder of serve.images.roots")
        return read_bytes(inside, limit=self._given.max_bytes)

    def _of_a_store(self, address: str, what: str) -> bytes:
        parts = address.split("/")[2:]
        for place in self._given.places:
            top = str(place).rstrip("/").split("/")[2:]
            is_of_it = address.partition("://")[0] == str(place).partition("://")[0]
            if is_of_it and len(parts) > len(top) and parts[: len(top)] == top and not {".", ".."} & {*parts}:
                return read_bytes(address, self._given.storage_options, self._given.max_bytes)
        raise ImageError(f"{what}: it is not below one of serve.images.places")


def _inside(path: Path, roots: Iterable[Path]) -> Path | None:
    """Where the path leads in the end, if that is in one of the folders."""
    try:
        real = path.resolve()
        return real if any(real.is_relative_to(root.resolve()) for root in roots) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name too long for the file system
        return None


def _store_rules(endpoint: str) -> list[str]:
    """Of a store that Label Studio sends us on to; it may have a name for each bucket."""
    netloc = urlsplit(endpoint).netloc.rpartition("@")[2]
    return [netloc] if netloc.startswith("[") else [netloc, f"*.{netloc}"]


def _named(address: str) -> str:
    """As messages may show it; of a data: address, which is an image itself, nothing but its kind."""
    if address[:5].lower() == "data:":
        return "data:..."
    # What is no address for `shown` could hold a login or a signature all the same.
    text = shown(f"http:{address}").removeprefix("http:") if address.startswith("//") else shown(address)
    return _cut(text.partition("?")[0])


def _cut(text: str) -> str:
    readable = "".join(c if c.isprintable() else "?" for c in text[:_SHOWN])
    return readable + ("..." if len(text) > _SHOWN else "")
