"""Checks that people will see pictures, by the way that label_studio.media chooses."""

import io
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, assert_never

from PIL import Image

from mad_backend.errors import PoolError
from mad_backend.pool.sources import list_images
from mad_backend.settings import Media
from sync.doctor.browser import Shown, show
from sync.doctor.findings import Finding, ok, warning, wrong
from sync.doctor.situation import Situation, origin_of
from sync.hosts import picture_host
from sync.pictures import PictureHost

_SIZE: Final = (48, 32)
_STORES: Final = ("s3://", "gs://", "az://")


def pictures(at: Situation) -> Iterator[Finding]:
    """A probe picture is placed where pictures of tasks go, and asked for as the browser of an annotator would."""
    media = at.settings.label_studio.media
    host = picture_host(at.settings, at.store, at.client)
    cure = _cors_cure(media, origin_of(at.settings.label_studio.url))
    if media == "as-is":
        yield _photo(at, host, cure)
    name, content = at.picture_name, _probe_picture()
    try:
        address = host.place(at.probe.project_id, {name: content})[name]
        shown = _shown(at, address, cure)
    finally:
        _tidy(at, name)
    what = "overlays (uploaded)" if media == "as-is" else f"pictures (media: {media})"
    if shown.content != content:
        yield wrong(
            f"{what}: browsers get {len(shown.content)} bytes that are not the picture that was placed",
            "check what stands between browsers and the pictures: a login page, a proxy that changes files",
        )
    else:
        yield _seen(what, shown)


def _photo(at: Situation, host: PictureHost, cure: str) -> Finding:
    """The pool's first photo, at its own address; raises PoolError or SettingsError."""
    listed = list_images(at.settings.pool, at.settings.mirrors)
    if not listed:
        raise PoolError("the pool is empty, so there is no photo to look at; check pool")
    own = host.own_address(listed[0].path)
    assert own is not None
    if own.startswith(_STORES):
        # The record of its bucket is made with the first pictures of a project.
        host.place(at.probe.project_id, {})
    shown = _shown(at, own, cure)
    try:
        with Image.open(io.BytesIO(shown.content)) as opened:
            kind = opened.format
    except OSError:
        return wrong(
            f"photo {listed[0].image_id}: browsers get no picture from {shown.address}",
            "check the addresses in the pool, or choose another label_studio.media",
        )
    if kind not in ("JPEG", "PNG", "WEBP", "GIF"):
        return wrong(
            f"photo {listed[0].image_id} is a {kind} file, which browsers do not show",
            "choose another label_studio.media than as-is: it sends JPEG files",
        )
    return _seen("photos (media: as-is)", shown)


def _shown(at: Situation, address: str, cure: str) -> Shown:
    task = at.probe.read(at.probe.task(address))
    return show(at, task["data"]["image"], cure)


def _seen(what: str, shown: Shown) -> Finding:
    if shown.kind is not None and not shown.kind.startswith("image/"):
        return warning(
            f'{what}: {shown.address} has the content type "{shown.kind}"',
            "store pictures with type image/jpeg",
        )
    # What Label Studio gives itself was asked for at our own address of it, not at the one that people open.
    giver = "Label Studio itself" if shown.kind is None else origin_of(shown.address)
    return ok(f"{what}: browsers get them from {giver}")


def _probe_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", _SIZE, (90, 160, 90)).save(file, format="JPEG")
    return file.getvalue()


def _tidy(at: Situation, name: str) -> None:
    """Deletes the picture where it lies in a folder of ours; the project's uploads go with it, a bucket keeps one."""
    given = at.settings.label_studio
    folders = [at.settings.pictures] if given.media == "serve" else []
    if given.media == "local-files" and given.local_files is not None:
        folders.append(given.local_files.root / given.local_files.folder)
    for folder in folders:
        with suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def _cors_cure(media: Media, page: str) -> str:
    rule = json.dumps(
        [{"AllowedOrigins": [page], "AllowedMethods": ["GET", "HEAD"], "AllowedHeaders": ["*"]}]
    )
    match media:
        case "serve":
            return (
                f"set label_studio.url to the address that people open (now {page}), and let a proxy in front of "
                "`mad serve` pass on the header Origin, and the answer's headers"
            )
        case "cloud":
            return f"give the bucket the CORS rule {rule}, or set label_studio.cloud.presign: false"
        case "as-is":
            return (
                f"let the photos' host answer with Access-Control-Allow-Origin: {page} (a bucket: CORS rule {rule}), "
                "or choose another label_studio.media"
            )
        case "upload" | "local-files":
            return "set label_studio.url to the address that people open"
        case _:
            assert_never(media)
