"""Bytes and listings at any address: a path of this machine, or what fsspec reads (s3://bucket/key, https://...)."""

import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import fsspec
from fsspec import AbstractFileSystem

from mad_backend.errors import ImageError, MissingRuntimeError, PoolError
from mad_backend.settings import CREDENTIALS

MAX_BYTES: Final = 512 * 2**20
"""Larger files are not read as images."""

FIRST_BYTES: Final = 16 * 2**20
"""What one request asks for. Only of a file that is longer the size is asked too, so that most cost one request."""

EXTRAS: Final = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gcs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "azure"),
    **dict.fromkeys(("http", "https"), "http"),
}
"""Scheme -> extra of this package that reads it."""

Options: TypeAlias = Mapping[str, bool | int | str]
"""What an fsspec file system is given: endpoint_url, anon, ... (settings: storage_options)."""

_WEB: Final = ("http", "https")
_WEB_PAUSES_S: Final = (0.2, 0.6)
_WEB_BLOCK: Final = 2**20
_CHECKSUMS: Final = ("ETag", "etag", "md5Hash", "Content-MD5")
_TIMES: Final = ("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "modified", "created")


class FoundFile(NamedTuple):
    """A file below a root: its name there ("deep/a.jpg"), its address, and its etag ("" if none is known)."""

    relative: str
    address: str
    etag: str


class _Refusal(Exception):  # noqa: N818 - never leaves this module
    """Why one file cannot be read, as the end of a sentence that begins with its name."""


def is_address(place: Path | str) -> bool:
    """True for what fsspec reads (s3://...), False for a path of this machine."""
    return isinstance(place, str) and "://" in place


def shown(place: Path | str) -> str:
    """An address as messages may show it: without login and query, which can hold signatures."""
    return _scrubbed(str(place)) if is_address(place) else str(place)


def read_bytes(place: Path | str, options: Options | None = None, limit: int = MAX_BYTES) -> bytes:
    """The bytes of one image file.

    Raises ImageError naming the file when it is absent, refused or longer than `limit`; PoolError when its store cannot
    be reached at all (a web server that cannot be reached is the image's fault: others may have other hosts);
    MissingRuntimeError when the package that reads such addresses is not installed.
    """
    try:
        return _read(place, options or {}, limit)
    except _Refusal as refusal:
        raise ImageError(f"image {shown(place)} {refusal}") from refusal.__cause__


def read_list(place: Path | str, options: Options, what: str, limit: int = 4 * MAX_BYTES) -> bytes:
    """The bytes of a list or a manifest; `what` begins the message of the PoolError that any failure raises."""
    try:
        return _read(place, options, limit)
    except _Refusal as refusal:
        raise PoolError(f"{what}: {shown(place)} {refusal}") from refusal.__cause__


def etag_of(place: Path | str, options: Options | None = None) -> str:
    """What the source says of the content, by one cheap question; "" if it says nothing, or has no such file.

    Raises as `read_bytes` does, ImageError excepted.
    """
    try:
        if not is_address(place):
            status = os.stat(place)  # noqa: PTH116 - no Path for each of a million files
            return f"{status.st_size}-{status.st_mtime_ns}"
        system = open_system(str(place), options or {})
        with _refusals(str(place)):
            return _etag(system.info(str(place)))
    except (OSError, _Refusal):
        return ""


def find_files(
    root: Path | str, options: Options, suffixes: tuple[str, ...], what: str
) -> Iterator[FoundFile]:
    """Every file below `root` whose name ends so (in lower case), in no order; links to folders are not followed.

    `what` begins the message of the PoolError that is raised when the folder is absent, refused or out of reach.
    """
    if is_address(root):
        return _find_remote(str(root), options, suffixes, what)
    if not os.path.isdir(root):  # noqa: PTH112 - as above
        raise PoolError(f"{what}: there is no folder {root}; check images in the settings")
    return _walk(str(root), "", suffixes, what)


def open_system(address: str, options: Options) -> AbstractFileSystem:
    """The file system of an address; fsspec keeps one per store and options, which threads may share.

    Raises PoolError for an unknown scheme, MissingRuntimeError when its package is not installed.
    """
    scheme = address.partition("://")[0]
    # The bucket or host alone: in the rest, fsspec would take "::" for a chain of file systems.
    store = "/".join(address.split("/")[:3])
    try:
        # Options are for stores; in a manifest that names a store and the web, they would confuse the web.
        given = {"client_kwargs": _web_client()} if scheme in _WEB else options
        system: AbstractFileSystem = fsspec.url_to_fs(store, **given)[0]
    except ImportError as error:
        name = EXTRAS.get(scheme)
        cure = f"pip install 'mad-segmentation[{name}]'" if name else str(error)
        raise MissingRuntimeError(
            f"{scheme}:// addresses need a package that is not installed; {cure}"
        ) from error
    except (ValueError, TypeError) as error:
        raise PoolError(
            f"{shown(address)}: fsspec cannot open such an address: {_scrubbed(str(error))}"
        ) from error
    return system


def _read(place: Path | str, options: Options, limit: int) -> bytes:
    if not is_address(place):
        return _read_local(place, limit)
    address = str(place)
    system = open_system(address, options)
    if address.partition("://")[0] in _WEB:
        return _read_web(system, address, limit)
    with _refusals(address):
        start = system.cat_file(address, start=0, end=min(FIRST_BYTES, limit + 1))
        if len(start) < FIRST_BYTES:
            return _within(limit, bytes(start))
        size = system.info(address).get("size")
        if size is not None and size > limit:
            raise _Refusal(_too_long(size, limit))
        return _within(limit, start + system.cat_file(address, start=len(start), end=limit + 1))


def _read_local(place: Path | str, limit: int) -> bytes:
    try:
        status = os.stat(place)  # noqa: PTH116 - as above
        if not stat.S_ISREG(status.st_mode):
            raise _Refusal("cannot be read: it is not a file")  # a pipe would be waited for
        if status.st_size > limit:
            raise _Refusal(_too_long(status.st_size, limit))
        with open(place, "rb") as file:  # noqa: PTH123 - as above
            return _within(limit, file.read(limit + 1))
    except FileNotFoundError as error:
        raise _Refusal("does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise _Refusal(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_web(system: AbstractFileSystem, address: str, limit: int) -> bytes:
    """Read as a stream, so that a server cannot send more than is wanted; tried again when the web fails."""
    for pause_s in (*_WEB_PAUSES_S, None):
        try:
            with _refusals(address):
                blocks, length = [], 0
                # A size of 1 saves asking for the size; nothing else depends on it.
                with system.open(address, "rb", block_size=0, size=1) as stream:
                    while length <= limit and (block := stream.read(_WEB_BLOCK)):
                        blocks.append(block)
                        length += len(block)
                return _within(limit, b"".join(blocks))
        except _Refusal as refusal:
            status = getattr(refusal.__cause__, "status", None)
            if pause_s is None or not _may_pass(refusal.__cause__, status):
                raise
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _may_pass(cause: BaseException | None, status: int | None) -> bool:
    """Whether another try may succeed."""
    if status is not None:
        return status == 429 or status >= 500
    return cause is not None and not isinstance(cause, FileNotFoundError | PermissionError | ValueError)


def _within(limit: int, data: bytes) -> bytes:
    if len(data) > limit:
        raise _Refusal(f"has more than {limit:,} bytes, the limit")
    return data


def _too_long(size: int, limit: int) -> str:
    return f"has {size:,} bytes; the limit is {limit:,}"


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """Turns what a file system raises on one file into _Refusal, and what it raises on a dead store into PoolError."""
    scheme = address.partition("://")[0]
    try:
        yield
    except _Refusal:
        raise
    except FileNotFoundError as error:
        raise _Refusal("does not exist") from error
    except (
        Exception
    ) as error:  # every file system raises errors of its own packages: botocore, aiohttp, azure, google
        told = _scrubbed(str(error)) or type(error).__name__
        if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
            raise _Refusal(f"may not be read ({told}){_credentials(scheme)}") from error
        is_file_fault = isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError)
        if scheme in _WEB or is_file_fault:
            raise _Refusal(f"cannot be read: {told}") from error
        raise PoolError(f"{shown(address)} cannot be reached: {told}{_credentials(scheme)}") from error


def _credentials(scheme: str) -> str:
    names = CREDENTIALS.get(EXTRAS.get(scheme, ""))
    return f"; credentials come from: {names}" if names else ""


def _scrubbed(text: str) -> str:
    """`text` without logins and queries of the addresses in it."""
    without_login = re.sub(r"(://)[^/@\s]+@", r"\1", text)
    return re.sub(r"(://[^\s?#'\"]*)\?[^\s'\")]*", r"\1", without_login)


def _web_client() -> dict[str, Any]:
    """What aiohttp's session is given: limits, and the proxies and ~/.netrc of the environment, as curl has them."""
    import aiohttp

    return {"timeout": aiohttp.ClientTimeout(total=300, sock_connect=10, sock_read=60), "trust_env": True}


def _etag(info: Mapping[str, Any]) -> str:
    """From what a listing says: the checksum it gives, else size and time."""
    checksum = next((info[key] for key in _CHECKSUMS if info.get(key)), None)
    if checksum:
        return str(checksum).strip('"')
    changed = next((info[key] for key in _TIMES if info.get(key)), None)
    size = info.get("size")
    return "" if changed is None or size is None else f"{size}-{changed}"


def _find_remote(root: str, options: Options, suffixes: tuple[str, ...], what: str) -> Iterator[FoundFile]:
    system = open_system(root, options)
    try:
        with _refusals(root):
            system.invalidate_cache()  # or a process that runs for days would never see a new image
            found = system.find(root, detail=True)
    except _Refusal as refusal:
        raise PoolError(f"{what}: {shown(root)} {refusal}") from refusal.__cause__
    except PoolError as error:
        raise PoolError(f"{what}: {error}") from error.__cause__
    top = str(system._strip_protocol(root)).rstrip("/")  # noqa: SLF001 - the form that names have in a listing
    for path, info in found.items():
        relative = path[len(top) + 1 :]
        if relative and path.lower().endswith(suffixes) and info.get("type", "file") == "file":
            yield FoundFile(relative, f"{root.rstrip('/')}/{relative}", _etag(info))


def _walk(folder: str, prefix: str, suffixes: tuple[str, ...], what: str) -> Iterator[FoundFile]:
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name.lower().endswith(suffixes) and entry.is_file():
                    try:
                        status = entry.stat()
                    except FileNotFoundError:
                        continue  # deleted while the folder is listed
                    etag = f"{status.st_size}-{status.st_mtime_ns}"
                    yield FoundFile(prefix + name, entry.path, etag)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{prefix}{name}/"))
    except FileNotFoundError:
        return  # as above, the whole folder
    except OSError as error:
        raise PoolError(f"{what}: cannot list {folder}: {error.strerror}") from error
    for path, deeper in folders:
        yield from _walk(path, deeper, suffixes, what)
