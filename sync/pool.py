"""A Label Studio project, or one view of it, as pool: a manifest of its images, and copies of those it keeps itself.

`mad_backend` reads the manifest and knows neither server nor token.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from mad_backend.errors import LabelStudioError, PoolError
from mad_backend.label_studio.label_config import image_fields
from mad_backend.network.servers import is_same_host
from mad_backend.pool.files import MAX_BYTES
from mad_backend.pool.manifests import SUFFIXES
from mad_backend.pool.sources import MIRROR_MANIFEST
from mad_backend.settings import LabelStudioSource, Settings, SourceSettings
from sync.client import LabelStudioClient

log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
"""Downloads; a small server has annotators to serve too."""
_CHUNK: Final = 1000
_TOLD: Final = 5
_LOCK: Final = ".lock"
_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)")
_ELSEWHERE: Final = {"azure-blob": "az"}
"""Label Studio's schemes that fsspec calls otherwise."""
_STORES: Final = ("http", "https", "s3", "gs", "az")

Report = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class MirrorReport:
    """What became of a source: images in its manifest, how many were fetched now, and why tasks are left out.

    `left_out` is task id -> reason.
    """

    source: str
    images: int
    fetched: int
    left_out: Mapping[int, str]


def mirrored_sources(settings: Settings) -> list[SourceSettings]:
    """The sources that are Label Studio projects: without any, no server is needed to list the pool."""
    return [s for s in (*settings.pool, *settings.s0, *settings.t0) if s.label_studio is not None]


def refresh_mirrors(
    settings: Settings, client: LabelStudioClient, report: Report = lambda _done, _total: None
) -> list[MirrorReport]:
    """Brings every source that is a Label Studio project up to date; what is there is not fetched again.

    Raises PoolError or LabelStudioError.
    """
    sources = mirrored_sources(settings)
    by_name = {source.name: source for source in sources}
    if any(by_name[source.name] != source for source in sources):
        raise PoolError("two Label Studio sources have one name; give them different names")
    return [
        mirror_project(client, source, settings.mirrors / source.name, report) for source in by_name.values()
    ]


def mirror_project(
    client: LabelStudioClient,
    source: SourceSettings,
    folder: Path,
    report: Report = lambda _done, _total: None,
) -> MirrorReport:
    """Writes `folder`/manifest.jsonl: a row per task, its id the task's, and the image it shows.

    Images that only the server can give are fetched into `folder` once, for as long as their address stays the same;
    those of other stores and hosts keep their addresses. Deleted tasks leave the manifest, and their copies go.
    Raises LabelStudioError when the server cannot be reached, or not one image can be had; PoolError when the settings
    do not fit the project.
    """
    assert source.label_studio is not None
    origin, what = source.label_studio, f'source "{source.name}"'
    with locked(folder):
        places, left_out = _places(client, origin, what)
        rows = {i: copy_name(i, place) if place.startswith("/") else place for i, place in places.items()}
        copied = {i for i, place in places.items() if place.startswith("/")}
        missing = [i for i in sorted(copied) if not (folder / rows[i]).exists()]
        if missing:
            log.info("%s: fetching %d images of project %d", what, len(missing), origin.project)
        failed = fetch_all(client, [(i, places[i], folder / rows[i]) for i in missing], report)
        if len(failed) == len(rows):
            task_id = min(failed)
            raise LabelStudioError(
                f"{what}: not one image of project {origin.project} can be fetched; task {task_id}: {failed[task_id]}"
            )
        left_out |= failed
        _write_manifest(folder, {i: row for i, row in rows.items() if i not in failed})
        forget(folder, {rows[i] for i in copied - failed.keys()})
    for task_id, reason in list(left_out.items())[:_TOLD]:
        log.warning("%s: task %d is left out: %s", what, task_id, reason)
    found = MirrorReport(source.name, len(rows) - len(failed), len(missing) - len(failed), left_out)
    log.info("%s: %d images, %d fetched, %d tasks left out", what, found.images, found.fetched, len(left_out))
    return found


def _places(
    client: LabelStudioClient, origin: LabelStudioSource, what: str
) -> tuple[dict[int, str], dict[int, str]]:
    """Task id -> where its image is, and task id -> why there is none, in the order of ids."""
    places: dict[int, str] = {}
    left_out: dict[int, str] = {}
    try:
        field = origin.field or _field(client, origin, what)
        for task_id, data in client.task_data(origin.project, origin.view):
            try:
                places[task_id] = place_of(client, data, field)
            except ValueError as error:
                left_out[task_id] = str(error)
    except LabelStudioError as error:
        if error.status != 404:
            raise
        view = f", or no view {origin.view} of it" if origin.view else ""
        raise PoolError(
            f"{what}: {client.url} has no project {origin.project}{view} that this token may see"
        ) from error
    if not places:
        why = f"task {min(left_out)}: {left_out[min(left_out)]}" if left_out else "there is no task"
        raise PoolError(
            f"{what}: no image in project {origin.project}{' in this view' if origin.view else ''}; {why}"
        )
    return dict(sorted(places.items())), dict(sorted(left_out.items()))


def _field(client: LabelStudioClient, origin: LabelStudioSource, what: str) -> str:
    """The one field that the project's labelling interface shows as an image."""
    project = client.project(origin.project)
    if project is None:
        raise LabelStudioError(f"{what}: no project {origin.project}", 404)
    found = image_fields(project.label_config)
    if len(found) != 1:
        raise PoolError(
            f"{what}: project {origin.project} shows {len(found)} images of a task ({', '.join(found) or 'no field'}); "
            "name the one that is meant under label_studio.field"
        )
    return found[0]


def place_of(client: LabelStudioClient, data: Mapping[str, Any], field: str) -> str:
    """An address that fsspec reads, or "/..." for what only the server gives; raises ValueError with the reason."""
    given = data.get(field)
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f'no address under "{field}"; the task has {", ".join(sorted(data)) or "no data"}')
    address = given.strip()
    found = _ADDRESS.match(address)
    if found and not is_same_host(address, client.url):
        scheme = _ELSEWHERE.get(found["scheme"], found["scheme"])
        if scheme not in _STORES:
            raise ValueError(f"{scheme}:// is not read; wanted {', '.join(_STORES)}, or a file of the server")
        return f"{scheme}://{found['rest']}"
    if address.startswith("data:"):
        raise ValueError("the image stands in the task itself (data:); upload it instead")
    path = "/" + found["rest"].partition("/")[2] if found else address
    # A slash before everything: "@host/x" behind the server's name would name another host.
    return "/" + path.removeprefix(urlsplit(client.url).path or "/").lstrip("/")


def copy_name(task_id: int, address: str) -> str:
    """Another address, another file; the name's end is the image's, for people who look into the folder."""
    parts = urlsplit(address)
    suffixes = [
        PurePosixPath(text).suffix.lower() for text in (parts.path, *dict(parse_qsl(parts.query)).values())
    ]
    suffix = next((s for s in suffixes if s in SUFFIXES), "")
    return f"{task_id}-{hashlib.sha256(address.encode()).hexdigest()[:12]}{suffix}"


def fetch_all(
    client: LabelStudioClient, wanted: Sequence[tuple[int, str, Path]], report: Report
) -> dict[int, str]:
    """Fetches (task id, path, file); returns task id -> reason for those that the server does not give."""
    failed: dict[int, str] = {}
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mirror") as pool:
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            reasons = pool.map(lambda one: _fetch(client, one[1], one[2]), chunk)
            for done, (one, reason) in enumerate(zip(chunk, reasons, strict=True), start=start + 1):
                if reason is not None:
                    failed[one[0]] = reason
                report(done, len(wanted))
    return failed


def _fetch(client: LabelStudioClient, address: str, file: Path) -> str | None:
    """None, or why the server does not give this one; raises LabelStudioError when it gives none at all."""
    try:
        content = client.download(address, MAX_BYTES)
    except LabelStudioError as error:
        # Label Studio 1.23.2 answers 500 for an uploaded file that was deleted.
        if error.status is None or error.status == 401:
            raise
        return str(error)
    write_whole(file, content)
    return None


def _write_manifest(folder: Path, rows: Mapping[int, str]) -> None:
    lines = (json.dumps({"id": str(task_id), "image": row}) for task_id, row in rows.items())
    write_whole(folder / MIRROR_MANIFEST, "".join(f"{line}\n" for line in lines).encode())


def write_whole(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(file)


def forget(folder: Path, wanted: set[str]) -> None:
    """Removes files of tasks that are gone, and what interrupted writes left."""
    for entry in os.scandir(folder):
        if entry.name not in wanted and entry.name not in (MIRROR_MANIFEST, _LOCK):
            Path(entry.path).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time: another's view of the project, a moment older, would take files away."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
