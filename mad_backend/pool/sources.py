"""Where images come from: folders, or folders with a list of ids."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mad_backend.core.records import PoolImage
from mad_backend.errors import PoolError
from mad_backend.settings import SourceSettings

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class LabelledImage:
    """An image with the file of its label map."""

    image: PoolImage
    mask: Path


def list_images(sources: Sequence[SourceSettings]) -> list[PoolImage]:
    """Every image of the sources, by image id ("source/stem").

    Raises PoolError naming what is missing: a folder, a list, a listed image, or all images.
    """
    found = [PoolImage(f"{s.name}/{stem}", str(path)) for s in sources for stem, path in _files(s).items()]
    twice = [image_id for image_id, n in Counter(i.image_id for i in found).items() if n > 1]
    if twice:
        raise PoolError(
            f"image ids {sorted(twice)[:5]} occur in two sources; give the sources different names"
        )
    return sorted(found, key=lambda image: image.image_id)


def list_labelled(sources: Sequence[SourceSettings]) -> list[LabelledImage]:
    """Every image with its label map; raises PoolError when a source has no `masks`, or one is missing."""
    labelled = []
    for source in sources:
        if source.masks is None:
            raise PoolError(f'source "{source.name}" needs masks: the folder of its label maps (index PNGs)')
        files = _files(source)
        missing = [stem for stem in files if not (source.masks / f"{stem}.png").is_file()]
        if missing:
            raise PoolError(
                f'source "{source.name}": {len(missing)} of {len(files)} label maps are missing in {source.masks}, '
                f"e.g. {min(missing)}.png"
            )
        labelled += [
            LabelledImage(PoolImage(f"{source.name}/{stem}", str(path)), source.masks / f"{stem}.png")
            for stem, path in files.items()
        ]
    return sorted(labelled, key=lambda item: item.image.image_id)


def _files(source: SourceSettings) -> dict[str, Path]:
    """Id without the source's name -> file."""
    if not source.images.is_dir():
        raise PoolError(
            f'source "{source.name}": there is no folder {source.images}; check images in the settings'
        )
    by_stem: dict[str, Path] = {}
    for path in sorted(source.images.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            stem = path.relative_to(source.images).with_suffix("").as_posix()
            if stem in by_stem:
                raise PoolError(f'source "{source.name}": {by_stem[stem]} and {path} have the same id')
            by_stem[stem] = path
    wanted = list(by_stem) if source.list is None else _listed(source, source.list)
    if not wanted:
        raise PoolError(f'source "{source.name}": no image in {source.list or source.images}')
    missing = [stem for stem in wanted if stem not in by_stem]
    if missing:
        raise PoolError(
            f'source "{source.name}": {len(missing)} of {len(wanted)} ids of {source.list} have no image in '
            f"{source.images}, e.g. {missing[0]}"
        )
    return {stem: by_stem[stem] for stem in wanted}


def _listed(source: SourceSettings, path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PoolError(f'source "{source.name}": cannot read list {path}: {error.strerror}') from None
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))
