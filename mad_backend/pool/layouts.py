"""Sources in the folders of PASCAL VOC and of Cityscapes, as their makers publish them."""

from pathlib import Path
from typing import Final

from mad_backend.core.labels import LabelSet
from mad_backend.errors import PoolError
from mad_backend.pool.files import find_files
from mad_backend.pool.listing import Listing, by_name, in_folder, index_ids, index_truths
from mad_backend.pool.truths import IndexIds, Truth
from mad_backend.settings import SourceSettings

VOC_CLASSES: Final = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

CITYSCAPES_CLASSES: Final = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk",
    "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup",
    "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus",
    "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""By the id of *_labelIds.png: cityscapesscripts/helpers/labels.py. Licence plates, id -1, are never drawn."""

CITYSCAPES_TRAINED: Final = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""By the id of *_labelTrainIds.png; the benchmark ignores the other classes."""

_PHOTO: Final = "_leftImg8bit.png"
_RAW: Final = "_gtFine_labelIds.png"
_TRAINED: Final = "_gtFine_labelTrainIds.png"


def list_voc(source: SourceSettings, root: Path, what: str) -> Listing:
    """JPEGImages, and SegmentationClass; of images that have no map there, SegmentationClassAug."""
    photos = _folder(root, "JPEGImages", "PASCAL VOC", what)
    ids = root / "ImageSets" / "Segmentation" / f"{source.split}.txt" if source.split else None
    images = in_folder(source, photos, ids, what)

    def truths(labels: LabelSet) -> dict[str, Truth]:
        masks = {image_id: _voc_mask(root, image_id) for image_id in images}
        names = VOC_CLASSES if source.classes and source.own_classes is None else None
        return dict(index_truths(source, masks, what, names)(labels))

    return Listing(images, truths)


def _voc_mask(root: Path, image_id: str) -> Path:
    own, augmented = (root / f / f"{image_id}.png" for f in ("SegmentationClass", "SegmentationClassAug"))
    return augmented if augmented.is_file() and not own.is_file() else own


def list_cityscapes(source: SourceSettings, root: Path, what: str) -> Listing:
    """leftImg8bit/<split>, ids "city/city_000000_000019", and gtFine/<split>: labelIds, else labelTrainIds.

    Classes that the benchmark ignores are void unless the label set has them or `classes` names them.
    """
    assert source.split is not None
    photos = _folder(root, f"leftImg8bit/{source.split}", "Cityscapes", what)
    found = find_files(photos, {}, (_PHOTO.lower(),), what)
    images = by_name(found, lambda relative: relative[: -len(_PHOTO)], what)

    def truths(labels: LabelSet) -> dict[str, Truth]:
        gt = _folder(root, f"gtFine/{source.split}", "Cityscapes", what)
        there = {f.relative for f in find_files(gt, {}, (_RAW.lower(), _TRAINED.lower()), what)}
        only_trained = {i for i in images if i + _RAW not in there and i + _TRAINED in there}
        ignored = set(CITYSCAPES_CLASSES) - set(CITYSCAPES_TRAINED)
        raw = index_ids(source, labels, what, CITYSCAPES_CLASSES, ignored)
        assert raw is not None
        ids = dict(zip(CITYSCAPES_CLASSES, raw.ids, strict=True))
        trained = IndexIds(tuple(ids[name] for name in CITYSCAPES_TRAINED))
        return {
            i: Truth(gt / (i + _TRAINED), trained) if i in only_trained else Truth(gt / (i + _RAW), raw)
            for i in images
        }

    return Listing(images, truths)


def _folder(root: Path, name: str, layout: str, what: str) -> Path:
    folder = root / name
    if not folder.is_dir():
        raise PoolError(f"{what}: {root} is not in the layout of {layout}: it has no folder {name}")
    return folder
