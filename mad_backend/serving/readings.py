"""What is read for a task: the label map it has already, or the frame that the model is to see."""

import logging
from dataclasses import dataclass

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame, PoolImage
from mad_backend.errors import CorruptFileError, ImageError
from mad_backend.pool.files import shown
from mad_backend.pool.ids import content_digest, image_keys
from mad_backend.pool.images import decode_frame, image_size
from mad_backend.pool.predictions import PredictionPack
from mad_backend.pool.reader import PoolReader
from mad_backend.serving.map_cache import Content, MapCache
from mad_backend.serving.pixel_room import PixelRoom
from mad_backend.serving.task_images import TaskImageReader

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """An image of a task: `size` is its own (height, width); exactly one of the last two is there.

    `label_map` is (h, w) uint8 on the grid.
    """

    content: Content
    size: tuple[int, int]
    label_map: LabelMap | None = None
    frame: Frame | None = None


class ImageReader:
    """May be used by many threads; images of more than `max_pixels` are refused before they are decoded."""

    def __init__(
        self,
        pool: PoolReader,
        tasks: TaskImageReader,
        grid: Grid,
        cache: MapCache,
        room: PixelRoom,
        max_pixels: int,
    ) -> None:
        self._pool = pool
        self._tasks = tasks
        self._grid = grid
        self._cache = cache
        self._room = room
        self._max_pixels = max_pixels

    def read(self, place: PoolImage | str, key: str, pack: PredictionPack) -> Reading:
        """Of a pool image, or of an address that a task names; `key` and `pack` are of the version that answers.

        Raises ImageError for what is wrong with one image, PoolError when its store cannot be reached.
        """
        if isinstance(place, PoolImage):
            data = self._pool.read(place)
            content, size = Content(place.image_id, content_digest(data)), image_size(data, place.path)
            stored = _stored(pack, place.image_id, content.digest)
            return self._reading(place, data, content, size, key, stored)
        data = self._tasks.read(place)
        content, size = Content("", content_digest(data)), image_size(data, place)
        if size[0] * size[1] > self._max_pixels:
            raise ImageError(
                f"image {shown(place)} has {size[1]} x {size[0]} pixels; serve.images.max_pixels is "
                f"{self._max_pixels:,}"
            )
        # Logs name a frame by its id, and the query of an address can be a signature.
        return self._reading(PoolImage(shown(place), place), data, content, size, key)

    def _reading(
        self,
        image: PoolImage,
        data: bytes,
        content: Content,
        size: tuple[int, int],
        key: str,
        stored: LabelMap | None = None,
    ) -> Reading:
        label_map = self._cache.get(key, content) if stored is None else stored
        if label_map is not None:
            return Reading(content, size, label_map=label_map)
        with self._room.taken(size[0] * size[1]):
            return Reading(content, size, frame=decode_frame(image, data, self._grid))


def _stored(pack: PredictionPack, image_id: str, digest: int) -> LabelMap | None:
    """The map of the last scan, if it is one of this content."""
    found, digests = pack.digests(image_keys([image_id]))
    if not found[0] or int(digests[0]) != digest:
        return None
    try:
        return pack.read(image_id)
    except CorruptFileError as error:
        log.warning("predicted anew: %s", error)
        return None
