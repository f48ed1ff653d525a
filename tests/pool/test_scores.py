"""Scores in Parquet parts: what comes back, what is replaced, and what a kill leaves behind."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mad_backend.core.metrics import joint_histogram
from mad_backend.core.scores import ClassAreas, PairScores, scores_of
from mad_backend.errors import CorruptFileError
from mad_backend.pool.ids import image_key, image_keys
from mad_backend.pool.score_parts import GROUP_ROWS, part_numbers, table_of
from mad_backend.pool.scores import SMALL_PARTS, ScoreStore

Row = tuple[str, int, int, int, float, float, list[tuple[int, int]], list[tuple[int, int]]]


def scores(*names: str, digest: int = 1) -> PairScores:
    """Of images of 9 x 9 pixels and 3 classes that are another image with another digest."""
    joints = []
    for name in names:
        rng = np.random.default_rng([image_key(name), digest])
        one, two = rng.integers(0, 4, (2, 9, 9), np.uint8)
        joints.append(joint_histogram(one, two, 3))
    looks = image_keys(f"look of {name}" for name in names)
    return scores_of(names, np.full(len(names), digest, np.uint64), looks, joints)


def many(first: int, count: int, digest: int = 1) -> PairScores:
    """Simple scores of a great number of images."""
    ids = [f"pool/{n:08d}" for n in range(first, first + count)]
    column = np.full(count, digest, np.uint64)
    areas = ClassAreas(
        np.arange(count + 1, dtype=np.int32), np.ones(count, np.uint8), np.full(count, 5, np.uint32)
    )
    d = np.arange(first, first + count) / 1e6
    return PairScores(ids, column, column, np.full(count, 81, np.uint32), d, d, areas, areas)


def areas_of(areas: ClassAreas, i: int) -> list[tuple[int, int]]:
    part = slice(areas.offsets[i], areas.offsets[i + 1])
    return list(zip(areas.class_ids[part].tolist(), areas.pixels[part].tolist(), strict=True))


def rows_of(batches: Iterable[PairScores]) -> list[Row]:
    return [
        (
            image_id,
            int(batch.digests[i]),
            int(batch.looks[i]),
            int(batch.pixels[i]),
            float(batch.miou[i]),
            float(batch.pixel_agreement[i]),
            areas_of(batch.target, i),
            areas_of(batch.competitor, i),
        )
        for batch in batches
        for i, image_id in enumerate(batch.image_ids)
    ]


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore(tmp_path)


def read(store: ScoreStore) -> list[Row]:
    return rows_of(store.read("f", "g"))


def test_scores_come_back_as_they_were_over_several_parts(store: ScoreStore, tmp_path: Path) -> None:
    first, second = scores("b", "ä/中", ""), scores("c")
    assert store.append("f", "g", first) == tmp_path / "f" / "g" / "scores-00000.parquet"
    store.append("f", "g", second)
    assert read(store) == rows_of([first, second])
    (one, _) = store.read("f", "g")
    assert (one.digests.dtype, one.looks.dtype, one.pixels.dtype) == (np.uint64, np.uint64, np.uint32)
    assert (one.miou.dtype, one.target.offsets.dtype) == (np.float64, np.int32)
    assert (one.target.class_ids.dtype, one.target.pixels.dtype) == (np.uint8, np.uint32)


def test_numbers_of_all_64_and_32_bits_fit(store: ScoreStore) -> None:
    largest = np.array([2**64 - 1], np.uint64)
    areas = ClassAreas(
        np.array([0, 2], np.int32), np.array([0, 254], np.uint8), np.array([1, 2**32 - 1], np.uint32)
    )
    d = np.array([1 / 3])
    given = PairScores(["a"], largest, largest, np.array([2**32 - 1], np.uint32), d, d, areas, areas)
    store.append("f", "g", given)
    assert read(store) == rows_of([given])


def test_an_image_that_no_model_found_a_class_in_has_no_areas(store: ScoreStore) -> None:
    joint = np.zeros((4, 4), np.int64)
    joint[3, 3] = 81
    one = np.ones(1, np.uint64)
    store.append("f", "g", scores_of(["void"], one, one, [joint]))
    assert read(store) == [("void", 1, 1, 81, 0.0, 0.0, [], [])]


def test_pairs_are_kept_apart(store: ScoreStore) -> None:
    store.append("f@0", "g", scores("a"))
    assert not list(store.read("f@1", "g"))
    assert not list(store.read("f@0", "h"))
    assert len(store.known("f@0", "h")[0]) == 0


def test_nothing_to_write_writes_nothing(store: ScoreStore, tmp_path: Path) -> None:
    assert store.append("f", "g", scores()) is None
    assert not list(tmp_path.iterdir())


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ScoreStore(tmp_path / name).append("f", "g", scores("a", "b"))
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_an_image_twice_in_one_call_is_refused(store: ScoreStore) -> None:
    with pytest.raises(ValueError, match="twice"):
        store.append("f", "g", scores("a", "b", "a"))


def test_a_half_written_part_is_not_read_and_not_in_the_way(store: ScoreStore, tmp_path: Path) -> None:
    store.append("f", "g", scores("a"))
    (tmp_path / "f" / "g" / "scores-00001.tmp").write_bytes(b"PAR1 half a file")
    assert rows_of(ScoreStore(tmp_path).read("f", "g")) == rows_of([scores("a")])
    store.append("f", "g", scores("b"))
    assert read(store) == rows_of([scores("a", "b")])


def test_a_damaged_part_is_named(store: ScoreStore, tmp_path: Path) -> None:
    path = store.append("f", "g", many(0, 500))
    assert path
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(CorruptFileError, match=r"scores-00000.parquet cannot be read .* `mad scan` again"):
        list(store.read("f", "g"))
    path.write_bytes(whole[:4] + bytes(b ^ 255 for b in whole[4:400]) + whole[400:])
    with pytest.raises(CorruptFileError, match=r"scores-00000.parquet"):
        list(store.read("f", "g"))


def test_an_image_that_is_scored_again_is_found_once_with_its_newest_row(
    store: ScoreStore, tmp_path: Path
) -> None:
    store.append("f", "g", scores("a", "b", "c"))
    store.append("f", "g", scores("d", "b", digest=2))
    store.append("f", "g", scores("b", digest=3))
    wanted = rows_of([scores("a", "c"), scores("d", digest=2), scores("b", digest=3)])
    assert read(store) == wanted
    assert rows_of(ScoreStore(tmp_path).read("f", "g")) == wanted
    keys, digests = ScoreStore(tmp_path).known("f", "g")
    assert keys.tolist() == sorted(image_key(name) for name in "abcd")
    assert dict(zip(keys.tolist(), digests.tolist(), strict=True)) == {
        image_key("a"): 1,
        image_key("b"): 3,
        image_key("c"): 1,
        image_key("d"): 2,
    }
    assert all(
        (mine == theirs).all() for mine, theirs in zip(store.known("f", "g"), (keys, digests), strict=True)
    )


def test_holds_tells_content_that_was_scored_from_content_that_was_not(store: ScoreStore) -> None:
    keys = image_keys("abcd")
    digests = np.array([1, 2, 1, 1], np.uint64)
    assert not store.holds("f", "g", keys, digests).any()
    store.append("f", "g", scores("c", "a", "b"))
    assert store.holds("f", "g", keys, digests).tolist() == [True, False, True, False]
    store.append("f", "g", scores("b", digest=2))
    assert store.holds("f", "g", keys, digests).tolist() == [True, True, True, False]


def test_what_another_process_added_is_known(store: ScoreStore, tmp_path: Path) -> None:
    store.append("f", "g", scores("a"))
    ScoreStore(tmp_path).append("f", "g", scores("b"))
    assert store.holds("f", "g", image_keys("ab"), np.ones(2, np.uint64)).all()
    store.append("f", "g", scores("b", digest=2))
    assert read(store) == rows_of([scores("a"), scores("b", digest=2)])


def test_images_that_left_the_pool_are_not_read_until_they_come_back(
    store: ScoreStore, tmp_path: Path
) -> None:
    store.append("f", "g", scores("a", "b", "c"))
    assert store.set_absent("f", "g", image_keys(["c", "elsewhere", "a"])) == 1
    assert read(store) == rows_of([scores("a", "c")])
    assert store.absent("f", "g").tolist() == [image_key("b")]
    assert len(store.known("f", "g")[0]) == 3, "they need no new scores when they come back"
    assert store.set_absent("f", "g", image_keys(["a", "b", "c"])) == 0
    assert read(store) == rows_of([scores("a", "b", "c")])
    assert store.set_absent("f", "other", image_keys("a")) == 0
    assert set(files(tmp_path)) == {"f/g/scores-00000.parquet"}


def test_many_small_parts_become_few_without_a_change_of_content(store: ScoreStore, tmp_path: Path) -> None:
    wanted = []
    for n in range(2 * SMALL_PARTS + 5):
        again = n % 7 == 6
        batch = scores(f"new {n}", *([f"new {n - 3}"] if again else []), digest=n + 1)
        store.append("f", "g", batch)
        wanted = [row for row in wanted if row[0] not in batch.image_ids] + rows_of([batch])
    assert read(store) == wanted
    assert rows_of(ScoreStore(tmp_path).read("f", "g")) == wanted
    assert len(part_numbers(tmp_path / "f" / "g")) <= SMALL_PARTS
    assert len(store.known("f", "g")[0]) == len(wanted)


def test_small_parts_that_fill_a_row_group_are_united(store: ScoreStore, tmp_path: Path) -> None:
    step = GROUP_ROWS // 4
    for n in range(6):
        store.append("f", "g", many(n * step, step))
    folder = tmp_path / "f" / "g"
    assert part_numbers(folder) == [4, 5, 6]
    assert pq.ParquetFile(folder / "scores-00004.parquet").num_row_groups == 1
    assert sum(len(batch) for batch in store.read("f", "g")) == 6 * step
    store.append("f", "g", many(10, 1, digest=2))
    found = rows_of(store.read("f", "g"))
    assert len(found) == 6 * step
    assert [row[1] for row in found if row[0] == "pool/00000010"] == [2]


def test_batches_have_at_most_65536_images(store: ScoreStore) -> None:
    store.append("f", "g", many(0, GROUP_ROWS + 10))
    assert [len(batch) for batch in store.read("f", "g")] == [GROUP_ROWS, 10]


def test_parts_that_were_united_but_not_yet_deleted_do_not_count(store: ScoreStore, tmp_path: Path) -> None:
    for n in range(SMALL_PARTS):
        store.append("f", "g", scores(f"{n}"))
    folder = tmp_path / "f" / "g"
    old = {path: path.read_bytes() for path in folder.iterdir()}
    store.append("f", "g", scores("last"))
    clean = files(folder)
    for path, data in old.items():  # as if the process had been killed before it could delete them
        path.write_bytes(data)
    restarted = ScoreStore(tmp_path)
    assert len(read(restarted)) == SMALL_PARTS + 1
    assert len(restarted.known("f", "g")[0]) == SMALL_PARTS + 1
    restarted.append("f", "g", scores("one more"))
    assert set(files(folder)) == {*clean, "scores-00066.parquet"}
    assert len(read(restarted)) == SMALL_PARTS + 2


def test_a_reader_is_not_disturbed_by_parts_being_united(store: ScoreStore, tmp_path: Path) -> None:
    for n in range(SMALL_PARTS):
        store.append("f", "g", scores(f"{n}"))
    reading = store.read("f", "g")
    found = [next(reading)]
    ScoreStore(tmp_path).append("f", "g", scores("3", digest=9))
    found += reading
    assert rows_of(found) == rows_of(scores(f"{n}") for n in range(SMALL_PARTS))


def test_any_parquet_reader_can_read_a_part(store: ScoreStore) -> None:
    given = scores("a", "b")
    path = store.append("f", "g", given)
    table = pq.read_table(path)
    assert table.equals(table_of(given))
    assert table["target_classes"].to_pylist() == [
        [k for k, _ in areas_of(given.target, 0)],
        [k for k, _ in areas_of(given.target, 1)],
    ]


KILLING = """
import os, random, signal, sys, time
from pathlib import Path
from tests.pool.test_scores import append_all
chance, kills = random.Random(3), 0
while True:
    child = os.fork()
    if child == 0:
        append_all(Path(sys.argv[1]))
        os._exit(0)
    time.sleep(chance.uniform(0.02, 0.9))
    os.kill(child, signal.SIGKILL)
    if os.waitpid(child, 0)[1] == 0:
        break
    kills += 1
print(kills)
"""


def append_all(root: Path) -> None:
    """70 calls, each of which is left out when its rows are there: what a scan that goes on does."""
    store = ScoreStore(root)
    for n in range(70):
        if not store.holds("f", "g", image_keys([f"pool/{2 * n:08d}"]), np.array([n], np.uint64)).all():
            again = n % 9 == 8  # with the last image of the call before
            store.append("f", "g", many(2 * n - again, 2 + again, digest=n))


def test_kills_at_random_moments_change_no_byte(tmp_path: Path) -> None:
    append_all(tmp_path / "whole")
    command = [sys.executable, "-c", KILLING, str(tmp_path / "killed")]
    kills = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=100, check=True
    )
    assert int(kills.stdout) > 0
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
