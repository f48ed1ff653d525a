"""Features of images that were kept: found by content, whole after a kill, from several writers at once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mad_backend.errors import CorruptFileError
from mad_backend.pool.features import FeatureStore, StoredFeatures, StoredInformation

WRITER = """
import sys
from pathlib import Path
from mad_backend.pool.features import FeatureStore
from tests.pool.test_features import features_of, keys

store = FeatureStore(Path(sys.argv[1]))
for n in range(0, 100_000, 8):
    store.append("f-1", features_of(keys(n, n + 8)))
    print(n, flush=True)
"""


def keys(start: int, stop: int) -> NDArray[np.uint64]:
    return np.arange(start, stop, dtype=np.uint64) * np.uint64(2**40 + 1)


def features_of(of: NDArray[np.uint64]) -> StoredFeatures:
    """Values that tell whose they are."""
    values = (of % np.uint64(1000)).astype(np.float32)
    embeddings = np.stack([values, values + 1, values + 2], 1)
    return StoredFeatures(of, of + np.uint64(1), values, -values, embeddings)


def check(store: FeatureStore, wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of the images are there, each with its own values."""
    found, read = store.read("f-1", wanted, wanted + np.uint64(1))
    expected = features_of(wanted[found])
    assert read.embeddings.dtype == np.float32
    for name, values in vars(expected).items():
        if found.any():
            np.testing.assert_array_equal(getattr(read, name), values)
    return found


def test_images_are_found_in_the_order_asked_for_whatever_part_they_are_in(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert check(store, keys(0, 5)).tolist() == [False] * 5
    store.append("f-1", features_of(keys(3, 6)))
    store.append("f-1", features_of(keys(0, 2)))
    store.append("f-1", features_of(keys(0, 0)))
    assert check(FeatureStore(tmp_path), keys(0, 8)[::-1]).tolist()[::-1] == [1, 1, 0, 1, 1, 1, 0, 0]
    assert check(store, keys(0, 0)).tolist() == []


def test_features_of_another_content_or_another_model_are_not_found(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.append("f-1", features_of(keys(0, 3)))
    assert not store.read("f-1", keys(0, 3), keys(0, 3))[0].any()
    assert not store.read("f-2", keys(0, 3), keys(0, 3) + np.uint64(1))[0].any()


def test_mutual_information_is_kept_by_its_number_of_passes(tmp_path: Path) -> None:
    store, own = FeatureStore(tmp_path), keys(0, 3)
    store.append_information("f-1", 10, StoredInformation(own, own, np.array([1, 2, 3], np.float32)))
    found, read = store.read_information("f-1", 10, own[::-1], own[::-1])
    assert found.all()
    assert read.mutual_information.tolist() == [3, 2, 1]
    assert not store.read_information("f-1", 20, own, own)[0].any()
    assert not store.read("f-1", own, own)[0].any()


def test_what_is_written_twice_is_there_once(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.append("f-1", features_of(keys(0, 4)))
    store.append("f-1", features_of(keys(0, 4)))
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    store.append("f-1", features_of(keys(2, 6)))
    assert check(store, keys(0, 6)).all()


def test_writers_that_are_killed_at_once_leave_whole_parts(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            # A buffer would take more lines than the one that is read, and `communicate` would not see them.
            bufsize=0,
        )
        for _ in range(2)
    ]
    try:
        assert all(writer.stdout and writer.stdout.readline() for writer in writers)
        time.sleep(0.1)
    finally:
        for writer in writers:
            writer.kill()
    # One line of each was read before.
    told = 1 + max(len(writer.communicate(timeout=60)[0].splitlines()) for writer in writers)
    assert [writer.returncode for writer in writers] == [-signal.SIGKILL] * 2
    found = check(FeatureStore(tmp_path), keys(0, 8 * told + 40))
    assert found[: 8 * told].all()
    assert not found[8 * told + 8 :].any(), "one part at most was written and not told of"


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.append("f-1", features_of(keys(0, 4)))
    (part,) = tmp_path.rglob("*.npz")
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(CorruptFileError, match=rf"{part.name} cannot be read as features .*delete it"):
        check(store, keys(0, 4))
