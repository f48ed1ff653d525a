"""Decoded training images in memory, one copy for all processes that read."""

import mmap
import multiprocessing

import numpy as np

from mad_backend.core.labels import LabelMap, RgbImage


class ImageCache:
    """Images and label maps of up to `count` samples, in at most `capacity` bytes; what comes later is not kept.

    Lies in anonymous shared memory, which forked processes write to as well, and takes no more than is in it.
    """

    def __init__(self, count: int, capacity: int) -> None:
        self._capacity = capacity
        self._pixels = mmap.mmap(-1, max(1, capacity))
        # Of each sample where it begins, its height and its width, 0 for one that is not there; last, bytes in use.
        self._table = np.frombuffer(mmap.mmap(-1, 8 * (3 * count + 1)), np.int64)
        # A fork start keeps the lock usable in the processes that read; they never start any themselves.
        self._lock = multiprocessing.get_context("fork").Lock()

    def get(self, index: int) -> tuple[RgbImage, LabelMap] | None:
        """Copies of what was put, (h, w, 3) and (h, w) uint8, which transforms may write to."""
        with self._lock:
            begin, height, width = self._table[3 * index : 3 * index + 3].tolist()
        if not height:
            return None
        area = height * width
        pixels = np.frombuffer(self._pixels, np.uint8, 4 * area, begin).copy()
        return pixels[: 3 * area].reshape(height, width, 3), pixels[3 * area :].reshape(height, width)

    def put(self, index: int, image: RgbImage, label_map: LabelMap) -> None:
        """Keeps (h, w, 3) and (h, w) uint8, unless the memory is full."""
        area = label_map.size
        with self._lock:
            begin = int(self._table[-1])
            if self._table[3 * index + 1] or begin + 4 * area > self._capacity:
                return
            kept = np.frombuffer(self._pixels, np.uint8, 4 * area, begin)
            kept[: 3 * area] = image.ravel()
            kept[3 * area :] = label_map.ravel()
            self._table[3 * index : 3 * index + 3] = begin, *label_map.shape
            self._table[-1] = begin + 4 * area
