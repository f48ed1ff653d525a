"""What a model said of images beside their label maps, by model key: scores of uncertainty and embeddings.

Parts are never changed: each is written under a temporary name and renamed, so it is there as a whole or not at all.
Its name is a digest of what is in it, so any number of processes may write at once, and what two of them computed twice
is the same file, or rows of which one is read.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mad_backend.errors import CorruptFileError

Columns: TypeAlias = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class StoredFeatures:
    """Of n images by key and content digest, as `pool.ids` makes them; embeddings are kept as float16."""

    keys: NDArray[np.uint64]
    digests: NDArray[np.uint64]
    entropy: NDArray[np.float32]
    margin: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    """(n, d)"""


@dataclass(frozen=True)
class StoredInformation:
    """Mean mutual information of n images by key and content digest."""

    keys: NDArray[np.uint64]
    digests: NDArray[np.uint64]
    mutual_information: NDArray[np.float32]


class FeatureStore:
    """Features of a model, and what `passes` stochastic passes told; `append` is on disk when it returns.

    Reading gives, of the images asked for, in their order, those that are there: `found` (n,) says which. Raises
    CorruptFileError naming the file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def append(self, model: str, features: StoredFeatures) -> None:
        if len(features.keys):
            columns = {**vars(features), "embeddings": features.embeddings.astype(np.float16)}
            _write(self._root / model / "features", columns)

    def append_information(self, model: str, passes: int, information: StoredInformation) -> None:
        if len(information.keys):
            _write(self._root / model / f"passes-{passes}", vars(information))

    def read(
        self, model: str, keys: NDArray[np.uint64], digests: NDArray[np.uint64]
    ) -> tuple[NDArray[np.bool_], StoredFeatures]:
        found, rows = _read(self._root / model / "features", keys, digests)
        nothing = np.zeros((0, 0), np.float16)
        return found, StoredFeatures(
            keys[found],
            digests[found],
            rows.get("entropy", np.zeros(0, np.float32)),
            rows.get("margin", np.zeros(0, np.float32)),
            rows.get("embeddings", nothing).astype(np.float32),
        )

    def read_information(
        self, model: str, passes: int, keys: NDArray[np.uint64], digests: NDArray[np.uint64]
    ) -> tuple[NDArray[np.bool_], StoredInformation]:
        found, rows = _read(self._root / model / f"passes-{passes}", keys, digests)
        information = rows.get("mutual_information", np.zeros(0, np.float32))
        return found, StoredInformation(keys[found], digests[found], information)


def _write(folder: Path, columns: Columns) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **columns)
    content = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"part-{hashlib.sha256(content).hexdigest()[:24]}.npz"
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / name)


def _read(
    folder: Path, keys: NDArray[np.uint64], digests: NDArray[np.uint64]
) -> tuple[NDArray[np.bool_], Columns]:
    """(n,) which images are there, and the columns of those, in the order asked for."""
    places = np.full(len(keys), -1, np.int64)
    taken: list[Columns] = []
    rows = 0
    order = np.argsort(keys, kind="stable")
    for part in _parts(folder):
        own, at = _matches(part, keys[order], digests[order])
        if len(own):
            places[order[at]] = rows + np.arange(len(own))
            taken.append({name: part[name][own] for name in part if name not in ("keys", "digests")})
            rows += len(own)
    found = places >= 0
    if not rows:
        return found, {}
    columns = {name: np.concatenate([part[name] for part in taken]) for name in taken[0]}
    return found, {name: values[places[found]] for name, values in columns.items()}


def _matches(
    part: Columns, keys: NDArray[np.uint64], digests: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a part that are asked for, and where in the ascending `keys` each is."""
    at = np.searchsorted(keys, part["keys"])
    inside = at < len(keys)
    at[~inside] = 0
    if len(keys):
        inside &= (keys[at] == part["keys"]) & (digests[at] == part["digests"])
    own = np.flatnonzero(inside)
    return own, at[own]


def _parts(folder: Path) -> Iterator[Columns]:
    for path in sorted(folder.glob("part-*.npz")):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                yield dict(file)
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise CorruptFileError(
                f"{path} cannot be read as features of a model ({error}); delete it, and they are computed again"
            ) from error
