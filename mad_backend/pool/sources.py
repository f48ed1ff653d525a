"""Where images come from: folders and stores, whole or by a list of ids, manifests, mirrored Label Studio projects."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from mad_backend.core.records import PoolImage
from mad_backend.errors import PoolError
from mad_backend.pool.files import etag_of, find_files, is_address, open_system, shown
from mad_backend.pool.manifests import SUFFIXES, Entry, read_manifest, without_suffix
from mad_backend.settings import SourceSettings

MIRROR_MANIFEST: Final = "manifest.jsonl"
"""In a mirror's folder; written last, so that what it names is there."""

_UNFIT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|(^|/)\.{0,2}(/|$)|^.{1001}")
"""In an image id: control characters, bytes that are no text, parts that a path would swallow, and endless names."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with the file of its label map."""

    image: PoolImage
    mask: Path


class _Found(NamedTuple):
    """What is known of an image besides its id; `mask` is what a manifest says."""

    address: str
    etag: str
    mask: Path | None = None


def list_images(sources: Sequence[SourceSettings], mirrors: Path) -> list[PoolImage]:
    """Every image of the sources, by image id ("source/name without suffix").

    `mirrors` holds a folder for each source that is a Label Studio project (`Settings.mirrors`). Raises PoolError
    naming what is missing, refused or double: a folder, a list, a manifest's row, a listed image, or all images;
    MissingRuntimeError when a source needs a package that is not installed.
    """
    found = [
        PoolImage(f"{s.name}/{i}", f.address, f.etag) for s in sources for i, f in _files(s, mirrors).items()
    ]
    _refuse_doubles(sources, found)
    return sorted(found, key=lambda image: image.image_id)


def list_labelled(sources: Sequence[SourceSettings], mirrors: Path) -> list[LabelledImage]:
    """Every image with its label map; raises PoolError also when a source has no `masks`, or one is missing."""
    labelled = []
    for source in sources:
        files = _files(source, mirrors)
        masks = {i: _mask_of(i, found, source) for i, found in files.items()}
        missing = [i for i, mask in masks.items() if not mask.is_file()]
        if missing:
            raise PoolError(
                f'source "{source.name}": {len(missing)} of {len(files)} label maps are missing, e.g. '
                f"{masks[min(missing)]}"
            )
        labelled += [
            LabelledImage(PoolImage(f"{source.name}/{i}", found.address, found.etag), masks[i])
            for i, found in files.items()
        ]
    return sorted(labelled, key=lambda item: item.image.image_id)


def _mask_of(image_id: str, found: _Found, source: SourceSettings) -> Path:
    if found.mask is not None:
        return found.mask
    if source.masks is None:
        raise PoolError(f'source "{source.name}" needs masks: the folder of its label maps (index PNGs)')
    return source.masks / f"{image_id}.png"


def _files(source: SourceSettings, mirrors: Path) -> dict[str, _Found]:
    """What a source holds, by id without the source's name."""
    what = f'source "{source.name}"'
    if source.label_studio is not None:
        manifest = mirrors / source.name / MIRROR_MANIFEST
        if not manifest.is_file():
            raise PoolError(
                f"{what}: Label Studio project {source.label_studio.project} was not fetched yet; run `mad scan` or "
                "`mad new-round`, which fetch it"
            )
        found = _of_manifest(source, manifest, None, what)
    elif source.manifest is not None:
        found = _of_manifest(source, source.manifest, source.images, what)
    else:
        assert source.images is not None
        found = _of_folder(source, source.images, what)
    if not found:
        raise PoolError(
            f"{what}: no image in {shown(source.list or source.manifest or source.images or mirrors)}"
        )
    return found


def _of_folder(source: SourceSettings, root: Path | str, what: str) -> dict[str, _Found]:
    by_id: dict[str, _Found] = {}
    for relative, address, etag in find_files(root, source.storage_options, SUFFIXES, what):
        image_id = without_suffix(relative)
        twin = by_id.get(image_id)
        if twin:
            one, other = sorted((twin.address, address))
            raise PoolError(f"{what}: {one} and {other} have the same id; rename one of them")
        if _UNFIT.search(image_id):
            raise PoolError(f"{what}: {shown(address)!r} has a name that cannot be an image id; rename it")
        by_id[image_id] = _Found(address, etag)
    if source.list is None:
        return by_id
    wanted = _listed(source.list, what)
    missing = [image_id for image_id in wanted if image_id not in by_id]
    if missing:
        raise PoolError(
            f"{what}: {len(missing)} of {len(wanted)} ids of {source.list} have no image in {shown(root)}, e.g. "
            f"{missing[0]}"
        )
    return {image_id: by_id[image_id] for image_id in wanted}


def _of_manifest(
    source: SourceSettings, manifest: Path | str, base: Path | str | None, what: str
) -> dict[str, _Found]:
    entries: dict[str, Entry] = {}
    for entry in read_manifest(manifest, base, source.storage_options, what, source.masks):
        twin = entries.get(entry.image_id)
        if twin:
            raise PoolError(
                f'{what}: {shown(manifest)}, rows {twin.row} and {entry.row} have the same id "{entry.image_id}" '
                f"({shown(twin.address)}, {shown(entry.address)}); give them different ids"
            )
        if _UNFIT.search(entry.image_id):
            raise PoolError(
                f"{what}: {shown(manifest)}, row {entry.row}: {entry.image_id!r} cannot be an image id: wanted names "
                'with / between them, none of them empty, "." or ".."; give the row another id'
            )
        entries[entry.image_id] = entry
    _check_packages(source, entries.values())
    found = {i: _Found(e.address, e.etag or _local_etag(e.address), e.mask) for i, e in entries.items()}
    missing = [i for i, f in found.items() if not f.etag and not is_address(f.address)]
    if missing:
        first = entries[missing[0]]
        raise PoolError(
            f"{what}: {len(missing)} of {len(found)} images of {shown(manifest)} are missing, e.g. row {first.row}: "
            f"{first.address}"
        )
    return found


def _local_etag(address: str) -> str:
    """Empty for what lies elsewhere: asking would cost a request an image."""
    return "" if is_address(address) else etag_of(address)


def _check_packages(source: SourceSettings, entries: Iterable[Entry]) -> None:
    """Raises MissingRuntimeError now instead of once an image."""
    by_scheme = {e.address.partition("://")[0]: e.address for e in entries if is_address(e.address)}
    for address in by_scheme.values():
        open_system(address, source.storage_options)


def _listed(path: Path, what: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PoolError(f"{what}: cannot read list {path}: {error.strerror}") from None
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _refuse_doubles(sources: Sequence[SourceSettings], images: Sequence[PoolImage]) -> None:
    if len({source.name for source in sources}) == len(sources):
        return  # ids of one source are unique, and begin with its name
    twice = [image_id for image_id, n in Counter(i.image_id for i in images).items() if n > 1]
    if twice:
        raise PoolError(
            f"image ids {sorted(twice)[:5]} occur in two sources; give the sources different names"
        )
