"""SHA-256 of images and label maps: read side by side, and only once as long as a file stays as it is."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from mad_backend.errors import ImageError
from mad_backend.pool.files import etag_of
from mad_backend.pool.truths import Truth
from training.finetuning.files import write_json

Item = TypeVar("Item")

READERS = min(8, 2 * (os.cpu_count() or 1))
"""Threads: a cold disk or a network mount answers many at once, and hashing lets other threads run."""


class FileDigests:
    """What files held when they were last read, in a JSON file; size and time of change tell whether they still do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[str, str]] = {}
        if path.exists():
            told = json.loads(path.read_text(encoding="utf-8"))
            self._known = {key: (etag, digest) for key, (etag, digest) in told.items()}

    def of_files(self, paths: Iterable[Path]) -> dict[Path, str]:
        """SHA-256 (hex) by path; raises ImageError naming one that cannot be read."""
        return self._digests({path: (str(path), path, partial(file_digest, path)) for path in paths})

    def of_truths(self, truths: Iterable[Truth]) -> dict[Truth, str]:
        """`Truth.digest` by truth; raises as that does."""
        return self._digests({truth: (_key(truth), truth.path, truth.digest) for truth in truths})

    def _digests(self, wanted: dict[Item, tuple[str, Path, Callable[[], str]]]) -> dict[Item, str]:
        with ThreadPoolExecutor(READERS, thread_name_prefix="digest") as pool:
            entries = dict(zip(wanted, pool.map(self._entry, wanted.values()), strict=True))
        fresh = {wanted[item][0]: entry for item, entry in entries.items()}
        if any(self._known.get(key) != entry for key, entry in fresh.items()):
            self._known |= fresh
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self._known)
        return {item: digest for item, (_, digest) in entries.items()}

    def _entry(self, wanted: tuple[str, Path, Callable[[], str]]) -> tuple[str, str]:
        key, path, read = wanted
        etag = etag_of(path)
        known = self._known.get(key)
        return known if known and etag and known[0] == etag else (etag, read())


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file of any size; raises ImageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _key(truth: Truth) -> str:
    if truth.coding is None:
        return str(truth.path)
    return f"{truth.path}#{hashlib.sha256(repr(truth.coding).encode()).hexdigest()[:32]}"
