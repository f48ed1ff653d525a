"""Sources that are a dataset of an mmsegmentation configuration, read by mmsegmentation's own dataset classes."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mad_backend.core.labels import VOID, LabelSet
from mad_backend.errors import MissingRuntimeError, ModelError, PoolError
from mad_backend.pool.files import etag_of, is_address
from mad_backend.pool.listing import Found, Listing, add, index_ids, is_fit
from mad_backend.pool.manifests import without_suffix
from mad_backend.pool.truths import Truth
from mad_backend.settings import SourceSettings

_LOADERS: Final = {split: f"{split}_dataloader" for split in ("train", "val", "test")}


@dataclass(frozen=True)
class _Dataset:
    """One dataset: (image, label map) of each item, and what the ids of the label maps stand for.

    `classes` are by id, once zero is reduced; `excluded` those that the configuration leaves out; `ignored_id` is the
    PNGs' own.
    """

    folder: Path
    suffix: str
    items: tuple[tuple[Path, Path | None], ...]
    classes: tuple[str, ...] | None
    excluded: frozenset[str]
    reduce_zero_label: bool
    ignored_id: int


def list_mmseg(source: SourceSettings, config: Path, base: Path | str | None, what: str) -> Listing:
    """Every image of the dataset (of all of them, where several are joined); ids are names below img_path.

    `base` is what relative paths of the configuration are relative to. Raises MissingRuntimeError when mmsegmentation
    is not installed.
    """
    try:
        datasets = _read(config, source.split or "train", base, what)
    except ModuleNotFoundError as error:
        raise MissingRuntimeError(
            f"{what}: mmseg needs {error.name}; pip install 'mad-segmentation[mmseg]'"
        ) from error
    images: dict[str, Found] = {}
    masks: dict[str, tuple[_Dataset, Path | None]] = {}
    for dataset in datasets:
        for image, mask in dataset.items:
            image_id = _id(image, dataset)
            if not is_fit(image_id):
                raise PoolError(f"{what}: {str(image)!r} has a name that cannot be an image id; rename it")
            add(images, image_id, Found(str(image), etag_of(image)), what)
            masks[image_id] = dataset, mask
    missing = [found.address for found in images.values() if not found.etag]
    if missing:
        raise PoolError(
            f"{what}: {len(missing)} of {len(images)} images of {config} are missing, e.g. {missing[0]}"
        )

    def truths(labels: LabelSet) -> dict[str, Truth]:
        told = f"{what} ({config})"
        codings = {
            id(d): index_ids(
                source,
                labels,
                told,
                d.classes,
                d.excluded,
                reduce_zero_label=d.reduce_zero_label,
                ignore_ids={d.ignored_id},
            )
            for d in datasets
        }
        bare = [image_id for image_id, (_, mask) in masks.items() if mask is None]
        if bare:
            raise PoolError(f"{told}: its dataset names no label maps; give data_prefix a seg_map_path")
        return {i: Truth(mask, codings[id(d)]) for i, (d, mask) in masks.items() if mask is not None}

    return Listing(images, truths)


def _id(image: Path, dataset: _Dataset) -> str:
    name = os.path.relpath(image, dataset.folder)
    has_suffix = bool(dataset.suffix) and name.endswith(dataset.suffix) and name != dataset.suffix
    return name[: -len(dataset.suffix)] if has_suffix else without_suffix(name)


def _read(config: Path, split: str, base: Path | str | None, what: str) -> list[_Dataset]:
    from mad_backend.models.mmseg_model import read_config

    if base is not None and is_address(base):
        raise PoolError(f"{what}: images of mmseg must be a folder of this machine, got {base}")
    if not config.is_file():
        raise PoolError(f"{what}: {config} does not exist; check mmseg in the settings")
    try:
        found = read_config(config)
    except ModelError as error:
        raise PoolError(f"{what}: {error}") from error
    where = _LOADERS.get(split, split)
    part = _part(found, where, f"{what}: {config}")
    leaves = list(_leaves(part, f"{what}: {config}, {where}"))
    return [
        _built(leaf, None if base is None else Path(base), f"{what}: {config}, {where}") for leaf in leaves
    ]


def _part(config: Any, dotted: str, told: str) -> Any:
    value = config
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, Mapping) or value is config else None
        if value is None:
            raise PoolError(
                f"{told} has no {dotted}; wanted split train, val or test (the dataset of that dataloader), or the "
                "dotted name of a dataset"
            )
    return value


def _leaves(part: Any, told: str) -> Iterator[dict[str, Any]]:
    """The datasets in a dataloader, or in what joins or repeats them."""
    if not isinstance(part, Mapping):
        raise PoolError(f"{told} is no dataset: {part!r:.60}")
    joined = part.get("datasets")
    if isinstance(joined, list | tuple):
        for one in joined:
            yield from _leaves(one, told)
    elif isinstance(part.get("dataset"), Mapping):
        yield from _leaves(part["dataset"], told)
    elif "type" in part:
        yield dict(part)
    else:
        raise PoolError(f"{told} is no dataset: it has no type")


def _built(leaf: dict[str, Any], base: Path | None, told: str) -> _Dataset:
    """Asks mmsegmentation which files the dataset has; no image is opened."""
    from mad_backend.models.mmseg_model import quietly

    with quietly():
        from mmseg.registry import DATASETS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        given = leaf | {"pipeline": [], "serialize_data": False, "data_root": _root(leaf, base, told)}
        try:
            dataset = DATASETS.build(given)
            items = [dataset.get_data_info(n) for n in range(len(dataset))]
            files = tuple((Path(i["img_path"]), _path(i.get("seg_map_path"))) for i in items)
            folder = Path(dataset.data_prefix["img_path"])
            current = dataset.metainfo.get("classes")
            own = type(dataset).METAINFO.get("classes") or current
            return _Dataset(
                folder,
                str(dataset.img_suffix),
                files,
                tuple(own) if own else None,
                frozenset(own or ()) - frozenset(current or own or ()),
                bool(dataset.reduce_zero_label),
                min(int(dataset.ignore_index) + bool(dataset.reduce_zero_label), VOID),
            )
        except Exception as error:  # a dataset class raises whatever it likes
            raise PoolError(f"{told}: mmsegmentation cannot read this dataset: {error}") from error


def _path(named: Any) -> Path | None:
    return None if named is None else Path(named)


def _root(leaf: Mapping[str, Any], base: Path | None, told: str) -> str:
    """`data_root`, absolute."""
    named = leaf.get("data_root") or ""
    if base is None and not os.path.isabs(named):  # noqa: PTH117 - a name in a configuration
        prefixes = {k: v for k, v in (leaf.get("data_prefix") or {}).items() if v}
        places = [named, *prefixes.values(), leaf.get("ann_file") or "/"]
        if named or not prefixes or not all(os.path.isabs(place) for place in places[1:]):  # noqa: PTH117
            raise PoolError(
                f'{told}: data_root "{named}" is relative; give the source images, the folder it is relative to'
            )
    return str((base or Path("/")) / named)
