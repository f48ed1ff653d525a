"""One chunk of images through a set of models: read, decode, predict, compress."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from mad_backend.core.grid import Grid
from mad_backend.core.looks import perceptual_hash
from mad_backend.core.records import Frame
from mad_backend.engines.base import ChunkResult, ChunkTask, ReadBytes, WantedImage
from mad_backend.errors import ImageError
from mad_backend.models.base import SegmentationModel
from mad_backend.pool.ids import content_digest
from mad_backend.pool.images import decode_frame
from mad_backend.pool.ledger import SeenImage
from mad_backend.pool.predictions import EncodedMap, StoredMap


@dataclass(frozen=True)
class _Read:
    """An image whose bytes were read; `lacking` has one entry a model: has it no map of this content?"""

    seen: SeenImage
    frame: Frame
    lacking: tuple[bool, ...]


class ChunkWorker:
    """Holds the models; `run` may be called by several threads, so that one chunk is read while another is predicted.

    Which images share a batch depends on the chunk alone, so that the same chunk gives the same bytes again.
    """

    def __init__(
        self, models: Sequence[SegmentationModel], grid: Grid, read: ReadBytes, decode_threads: int
    ) -> None:
        self._models = models
        self._grid = grid
        self._read_bytes = read
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._predicting = Lock()

    def close(self) -> None:
        self._decoders.shutdown(cancel_futures=True)

    def run(self, task: ChunkTask) -> ChunkResult:
        """Raises what a model raises; an image that cannot be read is in the result."""
        result = ChunkResult(
            task.number,
            len(task.images),
            tuple([] for _ in self._models),
            tuple([] for _ in self._models),
        )
        read: list[_Read] = []
        for wanted, found in zip(task.images, self._decoders.map(self._read, task.images), strict=True):
            if isinstance(found, ImageError):
                result.unreadable[wanted.image.image_id] = str(found)
            else:
                read.append(found)
        result.seen = [found.seen for found in read]
        for number, model in enumerate(self._models):
            own = [found for found in read if found.lacking[number]]
            if own:
                self._predict(number, model, own, result)
        return result

    def _read(self, wanted: WantedImage) -> _Read | ImageError:
        image = wanted.image
        try:
            data = self._read_bytes(image)
            frame = decode_frame(image, data, self._grid)
        except ImageError as error:
            return error
        digest = content_digest(data)
        seen = SeenImage(image, digest, perceptual_hash(frame.rgb))
        return _Read(seen, frame, tuple(stored != digest for stored in wanted.stored))

    def _predict(
        self, number: int, model: SegmentationModel, own: Sequence[_Read], result: ChunkResult
    ) -> None:
        with self._predicting:
            began = time.perf_counter()
            label_maps = model.predict([found.frame for found in own])
            result.model_s += time.perf_counter() - began
        for found, label_map in zip(own, label_maps, strict=True):
            image_id = found.seen.image.image_id
            if label_map is None:
                result.unanswered[number].append(image_id)
            else:
                encoded = EncodedMap.of(label_map)
                result.maps[number].append(StoredMap(image_id, found.seen.digest, encoded))
