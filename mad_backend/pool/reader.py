"""Pool images as bytes, pixels or files of this machine, wherever they lie."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from mad_backend.core.grid import Grid
from mad_backend.core.labels import RgbImage
from mad_backend.core.records import Frame, PoolImage
from mad_backend.errors import PoolError
from mad_backend.pool.files import Options, etag_of, is_address, read_bytes
from mad_backend.pool.images import decode_frame, decode_rgb, image_size
from mad_backend.pool.manifests import SUFFIXES
from mad_backend.settings import SourceSettings

QUESTIONS_AT_ONCE: Final = 32


@dataclass(frozen=True)
class PoolReader:
    """Knows what file systems must be given to read a source; plain data, so that other processes can be handed one.

    Threads may share one. Its methods raise ImageError for what is wrong with one image, PoolError when the store of
    many cannot be reached at all, MissingRuntimeError when the package that reads its addresses is not installed.
    """

    options: Mapping[str, Options] = field(default_factory=dict)
    """By source name, for sources that have any."""

    @classmethod
    def of(cls, sources: Iterable[SourceSettings]) -> Self:
        """Raises PoolError when two sources of one name want different options: images are told apart by that name."""
        options: dict[str, Options] = {}
        for source in sources:
            if options.setdefault(source.name, source.storage_options) != source.storage_options:
                raise PoolError(
                    f'two sources are called "{source.name}" and have different storage_options; give them different '
                    "names"
                )
        return cls({name: given for name, given in options.items() if given})

    def read(self, image: PoolImage) -> bytes:
        """The bytes of the image's file."""
        return read_bytes(image.path, self._options(image))

    def rgb(self, image: PoolImage) -> RgbImage:
        """(H, W, 3) uint8, as `decode_rgb` gives it."""
        return decode_rgb(self.read(image), image.path)

    def frame(self, image: PoolImage, grid: Grid) -> Frame:
        """What models see of the image."""
        return decode_frame(image, self.read(image), grid)

    def size(self, image: PoolImage) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return image_size(self.read(image), image.path)

    def with_etags(self, images: Sequence[PoolImage]) -> list[PoolImage]:
        """The images, with the etags of those that had none, as far as their stores tell: one small request each."""
        unknown = [image for image in images if not image.etag]
        if not unknown:
            return list(images)
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE, thread_name_prefix="etag") as pool:
            etags = pool.map(lambda image: etag_of(image.path, self._options(image)), unknown)
            told = dict(zip((image.image_id for image in unknown), etags, strict=True))
        return [image if image.etag else replace(image, etag=told[image.image_id]) for image in images]

    def local_file(self, image: PoolImage, folder: Path) -> Path:
        """The image's file on this machine: its own, or a copy in `folder`, made once and whole."""
        if not is_address(image.path):
            return Path(image.path)
        suffix = Path(image.path.partition("?")[0]).suffix.lower()
        content = f"{image.image_id}\n{image.path}\n{image.etag}"
        key = hashlib.sha256(content.encode()).hexdigest()[:32]
        copy = folder / f"{key}{suffix if suffix in SUFFIXES else ''}"
        if not copy.exists():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
            temporary.write_bytes(self.read(image))
            temporary.replace(copy)
        return copy

    def _options(self, image: PoolImage) -> Options:
        return self.options.get(image.image_id.partition("/")[0], {})
