"""Sources whose images and label maps a COCO annotation file names."""

import os
from collections.abc import Collection
from pathlib import Path

from mad_backend.core.labels import VOID, LabelSet
from mad_backend.errors import PoolError
from mad_backend.pool.coco_file import CocoFile, CocoImage, PanopticAnnotation, read_coco
from mad_backend.pool.coco_truths import InstanceParts, PanopticSegments, Part, Segment
from mad_backend.pool.files import shown
from mad_backend.pool.listing import Found, Listing, add, class_ids, is_fit, local_etag
from mad_backend.pool.manifests import without_suffix
from mad_backend.pool.truths import Truth
from mad_backend.settings import SourceSettings


def list_coco(source: SourceSettings, path: Path, images: Path | str, what: str) -> Listing:
    """Every image of the file; ids are its file names without suffix. `images` is what those are relative to."""
    coco = read_coco(path, what)
    found: dict[str, Found] = {}
    by_id: dict[str, CocoImage] = {}
    for image in coco.images:
        name = _confined(image.file_name, f"{what}: {path}, image {image.image_id}")
        image_id = without_suffix(name)
        if not is_fit(image_id):
            raise PoolError(
                f"{what}: {path}, image {image.image_id}: {name!r} cannot be an image id; rename the file"
            )
        address = f"{str(images).rstrip('/')}/{name}"
        add(found, image_id, Found(address, local_etag(address)), what)
        by_id[image_id] = image
    missing = [f.address for f in found.values() if not f.etag and isinstance(images, Path)]
    if missing:
        raise PoolError(
            f"{what}: {len(missing)} of {len(found)} images of {path} are missing, e.g. {shown(missing[0])}"
        )

    def truths(labels: LabelSet) -> dict[str, Truth]:
        classes = _classes(source, coco, labels, f"{what} ({path})")
        if coco.panoptic:
            folder = source.masks or path.with_suffix("")
            return _panoptic(coco, classes, by_id, folder, what)
        if source.masks is not None:
            raise PoolError(
                f"{what}: masks are for panoptic segments, and {path} has instances; take masks out of the settings"
            )
        rest = 0 if labels.has_background else VOID
        return {i: _instances(coco, classes, image, rest, what) for i, image in by_id.items()}

    return Listing(found, truths)


def _classes(source: SourceSettings, coco: CocoFile, labels: LabelSet, what: str) -> dict[int, int]:
    """Category id -> id of the label set."""
    used = {
        *coco.instances[:, 3].tolist(),
        *(s.category_id for p in coco.panoptic.values() for s in p.segments),
    }
    unknown = sorted(used - set(coco.categories))
    if unknown:
        raise PoolError(
            f'{what}: annotations are of category {unknown[0]}, which is not in "categories"; wanted one of '
            f"{sorted(coco.categories)}"
        )
    names = tuple(coco.categories.values())
    return dict(zip(coco.categories, class_ids(source, labels, what, names), strict=True))


def _instances(coco: CocoFile, classes: dict[int, int], image: CocoImage, rest: int, what: str) -> Truth:
    if image.height is None or image.width is None:
        raise PoolError(f'{what}: {coco.path}, image {image.image_id} wants "height" and "width" in pixels')
    found = coco.instances_of(image.image_id).tolist()
    parts = tuple(Part(start, length, classes[category]) for start, length, category in found)
    return Truth(coco.path, InstanceParts(image.image_id, image.height, image.width, rest, parts))


def _panoptic(
    coco: CocoFile, classes: dict[int, int], by_id: dict[str, CocoImage], folder: Path, what: str
) -> dict[str, Truth]:
    _check_annotated(coco, by_id.values(), what)
    return {
        i: _panoptic_truth(coco, classes, coco.panoptic[im.image_id], folder, what) for i, im in by_id.items()
    }


def _panoptic_truth(
    coco: CocoFile, classes: dict[int, int], annotation: PanopticAnnotation, folder: Path, what: str
) -> Truth:
    name = _confined(annotation.file_name, f"{what}: {coco.path}, a panoptic label map")
    segments = sorted(
        Segment(s.segment_id, VOID if s.is_crowd else classes[s.category_id]) for s in annotation.segments
    )
    return Truth(folder / name, PanopticSegments(tuple(segments)))


def _check_annotated(coco: CocoFile, images: Collection[CocoImage], what: str) -> None:
    bare = [image.file_name for image in images if image.image_id not in coco.panoptic]
    if bare:
        raise PoolError(
            f"{what}: {len(bare)} of {len(images)} images of {coco.path} have no annotation, e.g. {bare[0]}; take them "
            'out of "images"'
        )


def _confined(name: str, where: str) -> str:
    """A relative name that stays in its folder; raises PoolError."""
    path = os.path.normpath(name)
    if os.path.isabs(path) or path.split("/")[0] in (".", "..") or "://" in name:  # noqa: PTH117 - a name, no file
        raise PoolError(f"{where}: file_name {name!r} leads out of its folder; wanted a name relative to it")
    return path
