"""Joint histograms in Parquet shards."""

from pathlib import Path

import numpy as np

from mad_backend.core.metrics import JointHistogram, joint_histogram
from mad_backend.pool.scores import ScoreStore


def joints(*names: str) -> dict[str, JointHistogram]:
    rng = np.random.default_rng(len(names))
    maps = rng.integers(0, 4, (len(names), 2, 9, 9), np.uint8)
    return {n: joint_histogram(one, two, 3) for n, (one, two) in zip(names, maps, strict=True)}


def test_histograms_come_back_as_they_were_over_several_shards(tmp_path: Path) -> None:
    scores = ScoreStore(tmp_path)
    first, second = joints("b", "a"), joints("c")
    scores.append("f@0", "g", first)
    scores.append("f@0", "g", second)
    found = dict(scores.read("f@0", "g"))
    assert set(found) == scores.image_ids("f@0", "g") == {"a", "b", "c"}
    for image_id, joint in (first | second).items():
        assert found[image_id].dtype == np.int64
        assert (found[image_id] == joint).all()


def test_pairs_are_kept_apart(tmp_path: Path) -> None:
    scores = ScoreStore(tmp_path)
    scores.append("f@0", "g", joints("a"))
    assert scores.image_ids("f@1", "g") == scores.image_ids("f@0", "h") == set()
    assert not list(scores.read("f@1", "g"))


def test_nothing_to_write_writes_nothing(tmp_path: Path) -> None:
    ScoreStore(tmp_path).append("f", "g", {})
    assert not list(tmp_path.iterdir())


def test_a_half_written_shard_is_not_read_and_not_in_the_way(tmp_path: Path) -> None:
    scores = ScoreStore(tmp_path)
    scores.append("f", "g", joints("a"))
    (tmp_path / "f" / "g" / "part-00001.tmp").write_bytes(b"PAR1 half a file")
    assert scores.image_ids("f", "g") == {"a"}
    scores.append("f", "g", joints("b"))
    assert scores.image_ids("f", "g") == {"a", "b"}


def test_a_shard_that_somebody_deleted_does_not_let_a_new_one_overwrite_another(tmp_path: Path) -> None:
    scores = ScoreStore(tmp_path)
    for name in "abc":
        scores.append("f", "g", joints(name))
    (tmp_path / "f" / "g" / "part-00000.parquet").unlink()
    scores.append("f", "g", joints("d"))
    assert scores.image_ids("f", "g") == {"b", "c", "d"}


def test_counts_of_a_large_image_fit(tmp_path: Path) -> None:
    scores = ScoreStore(tmp_path)
    scores.append("f", "g", {"a": np.array([[200_000_000, 0], [0, 1]], np.int64)})
    assert dict(scores.read("f", "g"))["a"].tolist() == [[200_000_000, 0], [0, 1]]
