"""What a source holds: its images by id, and how to come by their label maps."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from mad_backend.core.labels import VOID, LabelSet, id_table
from mad_backend.errors import PoolError
from mad_backend.pool.files import FoundFile, etag_of, find_files, is_address, shown
from mad_backend.pool.manifests import SUFFIXES, without_suffix
from mad_backend.pool.truths import NO_CLASS, IndexIds, Truth
from mad_backend.settings import SourceSettings

_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|(^|/)\.{0,2}(/|$)|^.{1001}")
"""In an image id: control characters, bytes that are no text, parts that a path would swallow, and endless names."""


class Found(NamedTuple):
    """What is known of an image besides its id."""

    address: str
    etag: str


Truths: TypeAlias = Callable[[LabelSet], Mapping[str, Truth]]
"""The label map of every image of a source, by id; raises PoolError. Asked only for sources that need label maps."""


@dataclass(frozen=True)
class Listing:
    """Images by id without the source's name."""

    images: Mapping[str, Found]
    truths: Truths


def is_fit(image_id: str) -> bool:
    """Whether it can be an image id: names with / between them, none of them empty, "." or ".."."""
    return not _UNFIT.search(image_id)


def local_etag(address: str) -> str:
    """Empty for what lies elsewhere: asking would cost a request an image."""
    return "" if is_address(address) else etag_of(address)


def in_folder(source: SourceSettings, root: Path | str, ids: Path | None, what: str) -> dict[str, Found]:
    """Every image below `root`, or those that the list `ids` names."""
    by_id = by_name(find_files(root, source.storage_options, SUFFIXES, what), without_suffix, what)
    if ids is None:
        return by_id
    wanted = _listed(ids, what)
    missing = [image_id for image_id in wanted if image_id not in by_id]
    if missing:
        raise PoolError(
            f"{what}: {len(missing)} of {len(wanted)} ids of {ids} have no image in {shown(root)}, e.g. {missing[0]}"
        )
    return {image_id: by_id[image_id] for image_id in wanted}


def by_name(files: Iterable[FoundFile], id_of: Callable[[str], str], what: str) -> dict[str, Found]:
    """The files by id; raises PoolError for two of one id, and for a name that can be none."""
    by_id: dict[str, Found] = {}
    for relative, address, etag in files:
        image_id = id_of(relative)
        add(by_id, image_id, Found(address, etag), what)
        if not is_fit(image_id):
            raise PoolError(f"{what}: {shown(address)!r} has a name that cannot be an image id; rename it")
    return by_id


def add(by_id: dict[str, Found], image_id: str, found: Found, what: str) -> None:
    """Raises PoolError where another file has that id."""
    twin = by_id.setdefault(image_id, found)
    if twin is not found:
        one, other = sorted((twin.address, found.address))
        raise PoolError(f"{what}: {shown(one)} and {shown(other)} have the same id; rename one of them")


def index_truths(
    source: SourceSettings, masks: Mapping[str, Path], what: str, own_classes: Collection[str] | None = None
) -> Truths:
    """Index PNGs whose ids are the label set's, or those of `own_classes`, or what the source's settings say."""

    def truths(labels: LabelSet) -> dict[str, Truth]:
        coding = index_ids(source, labels, what, own_classes)
        return {image_id: Truth(path, coding) for image_id, path in masks.items()}

    return truths


def index_ids(
    source: SourceSettings,
    labels: LabelSet,
    what: str,
    own_classes: Collection[str] | None = None,
    excluded: Collection[str] = (),
    *,
    reduce_zero_label: bool = False,
    ignore_ids: Collection[int] = (),
) -> IndexIds | None:
    """None where the PNGs have the label set's ids; `excluded` classes are void unless settings say otherwise."""
    names = source.own_classes if own_classes is None else tuple(own_classes)
    reduce_zero_label |= source.reduce_zero_label
    ignored = {*ignore_ids, *source.ignore_ids} - {VOID}
    if names is None and not reduce_zero_label and not ignored:
        return None
    own = range(len(labels)) if names is None else class_ids(source, labels, what, tuple(names), excluded)
    ids = [VOID, *own][:VOID] if reduce_zero_label else list(own)
    ids += [NO_CLASS] * (max(ignored, default=-1) + 1 - len(ids))
    return IndexIds(tuple(VOID if png in ignored else i for png, i in enumerate(ids)))


def class_ids(
    source: SourceSettings,
    labels: LabelSet,
    what: str,
    names: tuple[str, ...],
    excluded: Collection[str] = (),
) -> list[int]:
    """The label set's id for each of the source's class names, by its `classes`; raises PoolError."""
    mapping = {name: "ignore" for name in excluded if name not in labels.names} | source.classes
    return [int(i) for i in id_table(names, labels, mapping, what, "classes", PoolError)[: len(names)]]


def _listed(path: Path, what: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PoolError(f"{what}: cannot read list {path}: {error.strerror}") from None
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
