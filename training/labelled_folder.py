"""A folder of label maps drawn by hand as S: each with its image, and checked before anything is learnt."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mad_backend.core.labels import VOID, LabelSet
from mad_backend.core.records import PoolImage
from mad_backend.errors import PoolError, TrainingError
from mad_backend.pool.files import find_files, read_bytes
from mad_backend.pool.images import image_size
from mad_backend.pool.manifests import SUFFIXES, without_suffix
from mad_backend.pool.truths import Truth
from training.finetuning.samples import Sample

SHOWN = 5
"""Names in a message."""


@dataclass(frozen=True)
class Drawn:
    """A label map by its name: its place below the folder, without suffix."""

    name: str
    truth: Truth


def drawn_maps(folder: Path) -> list[Drawn]:
    """Every PNG below `folder`, by name; raises PoolError if there is none."""
    _check_folder(folder, "--masks")
    found = [
        Drawn(without_suffix(relative), Truth(Path(path)))
        for relative, path, _ in find_files(folder, {}, (".png",), "--masks")
    ]
    if not found:
        raise PoolError(f"--masks: there is no PNG in {folder}; wanted label maps as index PNGs")
    return sorted(found, key=lambda drawn: drawn.name)


def images_in(folder: Path) -> list[PoolImage]:
    """Every image below `folder`; its id is its place there, without suffix."""
    _check_folder(folder, "--images")
    found = find_files(folder, {}, SUFFIXES, "--images")
    return [PoolImage(without_suffix(relative), path, etag) for relative, path, etag in found]


def _check_folder(folder: Path, option: str) -> None:
    if not folder.is_dir():
        raise PoolError(f"{option}: there is no folder {folder}")


def matched(drawn: Sequence[Drawn], images: Iterable[PoolImage], where: str) -> list[tuple[PoolImage, Drawn]]:
    """The image of each label map: the one whose id is the map's name, or the only one whose id ends with it.

    "a" is the name of "web/a" and of "web/day/a". Raises PoolError when a map has no image, or two.
    """
    wanted, maps = {d.name for d in drawn}, {str(d.truth.path) for d in drawn}
    by_name: dict[str, list[PoolImage]] = {}
    for image in images:
        if image.path in maps:
            continue  # maps and images may lie side by side
        parts = image.image_id.split("/")
        for name in wanted.intersection("/".join(parts[n:]) for n in range(len(parts))):
            by_name.setdefault(name, []).append(image)
    pairs, missing = [], []
    for d in drawn:
        found = by_name.get(d.name, [])
        exact = [image for image in found if image.image_id == d.name]
        if len(exact or found) > 1:
            ids = " and ".join(sorted(image.image_id for image in found)[:2])
            raise PoolError(
                f'label map {d.truth} fits {ids} of {where}; call it "{d.name}" with their folder'
            )
        if found:
            pairs.append(((exact or found)[0], d))
        else:
            missing.append(d.name)
    if missing:
        raise PoolError(
            f"{len(missing)} of {len(drawn)} label maps have no image of the same name in {where}: "
            f"{_listed(missing)}"
        )
    return pairs


def check_maps(samples: Sequence[Sample], labels: LabelSet) -> dict[str, list[int]]:
    """Raises TrainingError naming maps of another size than their image, or without a class of the label set.

    Returns ids beyond the label set by image id; they count as void.
    """
    with ThreadPoolExecutor(thread_name_prefix="masks") as pool:
        present = list(pool.map(_ids, samples))
    empty = [s for s, ids in zip(samples, present, strict=True) if not any(i < len(labels) for i in ids)]
    if empty:
        ids = sorted(set().union(*present))
        raise TrainingError(
            f"{len(empty)} label maps have no pixel of a class, e.g. {empty[0].truth}: wanted ids 0..{len(labels) - 1} "
            f'of label set "{labels.name}" ({VOID}: void), got {", ".join(map(str, ids[:10]))}'
        )
    beyond = {
        s.image_id: [i for i in ids if len(labels) <= i < VOID]
        for s, ids in zip(samples, present, strict=True)
    }
    return {image_id: ids for image_id, ids in beyond.items() if ids}


def _ids(sample: Sample) -> list[int]:
    label_map = sample.truth.read()
    height, width = image_size(read_bytes(sample.image), str(sample.image))
    if label_map.shape != (height, width):
        raise TrainingError(
            f"label map {sample.truth} is {label_map.shape[1]} x {label_map.shape[0]} pixels, its image "
            f"{sample.image} {width} x {height}; draw it at the image's own size"
        )
    found: list[int] = np.flatnonzero(np.bincount(label_map.ravel(), minlength=256)).tolist()
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
