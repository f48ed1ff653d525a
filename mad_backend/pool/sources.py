"""Where images come from: folders and stores, manifests, mirrored Label Studio projects, layouts of data sets."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from mad_backend.core.labels import LabelSet
from mad_backend.core.records import PoolImage
from mad_backend.errors import PoolError
from mad_backend.pool.coco_source import list_coco
from mad_backend.pool.files import is_address, open_system, shown
from mad_backend.pool.layouts import list_cityscapes, list_voc
from mad_backend.pool.listing import Found, Listing, in_folder, index_truths, is_fit, local_etag
from mad_backend.pool.manifests import Entry, read_manifest
from mad_backend.pool.mmseg_dataset import list_mmseg
from mad_backend.pool.truths import Truth
from mad_backend.settings import Origin, SourceSettings

MIRROR_MANIFEST: Final = "manifest.jsonl"
"""In a mirror's folder; written last, so that what it names is there."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with its human label map."""

    image: PoolImage
    truth: Truth


def list_images(sources: Sequence[SourceSettings], mirrors: Path) -> list[PoolImage]:
    """Every image of the sources, by image id ("source/name without suffix").

    `mirrors` holds a folder for each source that is a Label Studio project (`Settings.mirrors`). Raises PoolError
    naming what is missing, refused or double: a folder, a list, a manifest's row, a listed image, or all images;
    MissingRuntimeError when a source needs a package that is not installed.
    """
    found = [
        _pool_image(source, image_id, image)
        for source in sources
        for image_id, image in _listing(source, mirrors).images.items()
    ]
    _refuse_doubles(sources, found)
    return sorted(found, key=lambda image: image.image_id)


def list_labelled(sources: Sequence[SourceSettings], mirrors: Path, labels: LabelSet) -> list[LabelledImage]:
    """Every image with its label map, in ids of `labels`.

    Raises as `list_images` does; PoolError also when a source does not say where its label maps are, one is missing, or
    a class of the source is mapped to none of `labels`.
    """
    labelled = []
    for source in sources:
        listing = _listing(source, mirrors)
        truths = listing.truths(labels)
        there = {path for path in {truth.path for truth in truths.values()} if path.is_file()}
        missing = [image_id for image_id, truth in truths.items() if truth.path not in there]
        if missing:
            raise PoolError(
                f'source "{source.name}": {len(missing)} of {len(truths)} label maps are missing, e.g. '
                f"{truths[min(missing)].path}"
            )
        labelled += [
            LabelledImage(_pool_image(source, image_id, image), truths[image_id])
            for image_id, image in listing.images.items()
        ]
    return sorted(labelled, key=lambda item: item.image.image_id)


def _pool_image(source: SourceSettings, image_id: str, found: Found) -> PoolImage:
    return PoolImage(f"{source.name}/{image_id}", found.address, found.etag)


def _listing(source: SourceSettings, mirrors: Path) -> Listing:
    what = f'source "{source.name}"'
    listing = _of_origin(source, mirrors, what)
    if not listing.images:
        place = source.list or getattr(source, source.origin)
        raise PoolError(
            f"{what}: no image in {shown(mirrors if source.origin is Origin.LABEL_STUDIO else place)}"
        )
    return listing


def _of_origin(source: SourceSettings, mirrors: Path, what: str) -> Listing:
    match source.origin:
        case Origin.IMAGES:
            assert source.images is not None
            images = in_folder(source, source.images, source.list, what)
            listing = Listing(images, lambda labels: _truths(source, dict.fromkeys(images), labels, what))
        case Origin.MANIFEST:
            assert source.manifest is not None
            listing = _of_manifest(source, source.manifest, source.images, what)
        case Origin.LABEL_STUDIO:
            listing = _of_manifest(source, _mirrored(source, mirrors, what), None, what)
        case Origin.VOC:
            assert source.voc is not None
            listing = list_voc(source, source.voc, what)
        case Origin.CITYSCAPES:
            assert source.cityscapes is not None
            listing = list_cityscapes(source, source.cityscapes, what)
        case Origin.COCO:
            assert source.coco is not None
            assert source.images is not None
            listing = list_coco(source, source.coco, source.images, what)
        case Origin.MMSEG:
            assert source.mmseg is not None
            listing = list_mmseg(source, source.mmseg, source.images, what)
        case _:
            assert_never(source.origin)
    return listing


def _truths(
    source: SourceSettings, masks: Mapping[str, Path | None], labels: LabelSet, what: str
) -> Mapping[str, Truth]:
    """Index PNGs: those that are given, else those that are called like the image in `source.masks`."""
    if source.masks is None and not all(masks.values()):
        raise PoolError(f"{what} needs masks: the folder of its label maps (index PNGs)")
    folder = source.masks or Path()
    by_id = {image_id: mask or folder / f"{image_id}.png" for image_id, mask in masks.items()}
    return index_truths(source, by_id, what)(labels)


def _mirrored(source: SourceSettings, mirrors: Path, what: str) -> Path:
    assert source.label_studio is not None
    manifest = mirrors / source.name / MIRROR_MANIFEST
    if not manifest.is_file():
        raise PoolError(
            f"{what}: Label Studio project {source.label_studio.project} was not fetched yet; run `mad scan` or "
            "`mad new-round`, which fetch it"
        )
    return manifest


def _of_manifest(source: SourceSettings, manifest: Path | str, base: Path | str | None, what: str) -> Listing:
    entries: dict[str, Entry] = {}
    for entry in read_manifest(manifest, base, source.storage_options, what, source.masks):
        twin = entries.get(entry.image_id)
        if twin:
            raise PoolError(
                f'{what}: {shown(manifest)}, rows {twin.row} and {entry.row} have the same id "{entry.image_id}" '
                f"({shown(twin.address)}, {shown(entry.address)}); give them different ids"
            )
        if not is_fit(entry.image_id):
            raise PoolError(
                f"{what}: {shown(manifest)}, row {entry.row}: {entry.image_id!r} cannot be an image id: wanted names "
                'with / between them, none of them empty, "." or ".."; give the row another id'
            )
        entries[entry.image_id] = entry
    _check_packages(source, entries.values())
    found = {i: Found(e.address, e.etag or local_etag(e.address)) for i, e in entries.items()}
    missing = [i for i, f in found.items() if not f.etag and not is_address(f.address)]
    if missing:
        first = entries[missing[0]]
        raise PoolError(
            f"{what}: {len(missing)} of {len(found)} images of {shown(manifest)} are missing, e.g. row {first.row}: "
            f"{first.address}"
        )
    masks = {image_id: entry.mask for image_id, entry in entries.items()}
    return Listing(found, lambda labels: _truths(source, masks, labels, what))


def _check_packages(source: SourceSettings, entries: Iterable[Entry]) -> None:
    """Raises MissingRuntimeError now instead of once an image."""
    by_scheme = {e.address.partition("://")[0]: e.address for e in entries if is_address(e.address)}
    for address in by_scheme.values():
        open_system(address, source.storage_options)


def _refuse_doubles(sources: Sequence[SourceSettings], images: Sequence[PoolImage]) -> None:
    if len({source.name for source in sources}) == len(sources):
        return  # ids of one source are unique, and begin with its name
    twice = [image_id for image_id, n in Counter(i.image_id for i in images).items() if n > 1]
    if twice:
        raise PoolError(
            f"image ids {sorted(twice)[:5]} occur in two sources; give the sources different names"
        )
