"""The packs of label maps: round trip, torn writes, killed writers, readers beside a writer, damage, shards."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mad_backend.core.labels import LabelMap
from mad_backend.errors import CorruptFileError, StoreError
from mad_backend.pool.ids import image_keys
from mad_backend.pool.predictions import EncodedMap, PredictionPack, PredictionStore, StoredMap
from tests.core.label_maps import SMALL


def stored(maps: Mapping[str, LabelMap], digest: int = 1) -> list[StoredMap]:
    return [StoredMap(image_id, digest, EncodedMap.of(m)) for image_id, m in maps.items()]


def written(folder: Path, *blocks: Mapping[str, LabelMap], shard_bytes: int = 1 << 30) -> list[int]:
    """Writes a pack block by block; returns the bytes of all shards after each."""
    sizes = []
    with PredictionPack(folder, writable=True, shard_bytes=shard_bytes) as pack:
        for block in blocks:
            pack.append(stored(block))
            sizes.append(sum(p.stat().st_size for p in folder.glob("*.pack")))
    return sizes


def small_maps(n: int, first: int = 0) -> dict[str, LabelMap]:
    return {f"s/ü{i}": np.full((2, 3 + i), i, np.uint8) for i in range(first, first + n)}


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.lists(st.dictionaries(IDS, SMALL, max_size=4), max_size=4), st.sampled_from([1, 200, 1 << 30]))
@settings(max_examples=40, deadline=None)
def test_what_was_written_is_read_back_before_and_after_reopening(
    blocks: list[dict[str, LabelMap]], shard_bytes: int
) -> None:
    last = {image_id: m for block in blocks for image_id, m in block.items()}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "m"
        with PredictionPack(folder, writable=True, shard_bytes=shard_bytes) as pack:
            for block in blocks:
                pack.append(stored(block))
                assert all(np.array_equal(pack.read(i), m) for i, m in block.items())
        with PredictionPack(folder) as pack:
            assert len(pack) == len(last)
            assert "not there" not in pack or "not there" in last
            assert all(np.array_equal(pack.read(i), m) for i, m in last.items())


def test_a_later_map_of_the_same_image_replaces_the_earlier_and_tells_of_which_content_it_is(
    tmp_path: Path,
) -> None:
    with PredictionPack(tmp_path, writable=True) as pack:
        for digest in (7, 8):
            pack.append(stored({"a": np.full((1, 1), digest, np.uint8)}, digest))
            found, digests = pack.digests(image_keys(["b", "a"]))
            assert found.tolist() == [False, True]
            assert digests.tolist() == [0, digest]
    with PredictionPack(tmp_path) as pack:
        assert len(pack) == 1
        assert pack.read("a").tolist() == [[8]]
        assert pack.digests(image_keys(["a"]))[1].tolist() == [8]


def test_a_full_shard_is_followed_by_a_new_one_and_all_are_read(tmp_path: Path) -> None:
    blocks = [small_maps(2, first) for first in range(0, 12, 2)]
    written(tmp_path, *blocks, shard_bytes=200)
    assert len(list(tmp_path.glob("*.pack"))) == 3
    with PredictionPack(tmp_path, writable=True, shard_bytes=200) as pack:
        pack.append(stored({"new": np.zeros((1, 1), np.uint8)}))
        assert all(np.array_equal(pack.read(i), m) for block in blocks for i, m in block.items())
    assert len(list(tmp_path.glob("*.pack"))) == 4


@pytest.mark.parametrize("shard_bytes", [1, 1 << 30])
def test_a_pack_cut_off_at_any_byte_keeps_every_whole_block_and_ends_as_one_that_was_not(
    tmp_path: Path, shard_bytes: int
) -> None:
    blocks = [small_maps(2), small_maps(1, 2), small_maps(3, 3)]
    sizes = written(tmp_path / "whole", *blocks, shard_bytes=shard_bytes)
    shards = sorted((tmp_path / "whole").glob("*.pack"))
    last = shards[-1].read_bytes()
    before = sizes[-1] - len(last)
    torn = tmp_path / "torn"
    torn.mkdir()
    for shard in shards[:-1]:
        (torn / shard.name).write_bytes(shard.read_bytes())
    for end in range(len(last) + 1):
        (torn / shards[-1].name).write_bytes(last[:end])
        whole = [b for b, size in zip(blocks, sizes, strict=True) if size <= before + end]
        expected = {i: m for block in whole for i, m in block.items()}
        with PredictionPack(torn) as reader:
            assert len(reader) == len(expected)
            assert all(np.array_equal(reader.read(i), m) for i, m in expected.items())
        with PredictionPack(torn, writable=True, shard_bytes=shard_bytes) as pack:
            for block in blocks[len(whole) :]:
                pack.append(stored(block))
        assert [p.read_bytes() for p in sorted(torn.glob("*.pack"))] == [p.read_bytes() for p in shards]


def test_a_flipped_byte_never_gives_a_wrong_map_and_costs_one_block_at_most(tmp_path: Path) -> None:
    blocks = [small_maps(2), small_maps(2, 2), small_maps(2, 4)]
    sizes = [0, *written(tmp_path / "whole", *blocks)]
    whole = (tmp_path / "whole" / "00000.pack").read_bytes()
    folder = tmp_path / "flipped"
    folder.mkdir()
    for place in range(len(whole)):
        flipped = whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :]
        (folder / "00000.pack").write_bytes(flipped)
        with PredictionPack(folder) as pack:
            for number, block in enumerate(blocks):
                is_hit = sizes[number] <= place < sizes[number + 1]
                for image_id, label_map in block.items():
                    try:
                        assert is_hit or image_id in pack
                        if image_id in pack:
                            assert np.array_equal(pack.read(image_id), label_map)
                    except CorruptFileError as error:
                        assert is_hit, error  # noqa: PT017 - damage elsewhere must not be an error


def test_what_lies_behind_damage_survives_reopening_for_writing(tmp_path: Path) -> None:
    first, _ = written(tmp_path, small_maps(2), small_maps(2, 2))
    shard = tmp_path / "00000.pack"
    damaged = bytearray(shard.read_bytes())
    damaged[9] ^= 0xFF  # in the first header's checksum
    shard.write_bytes(damaged)
    with PredictionPack(tmp_path, writable=True) as pack:
        assert [i for i in small_maps(4) if i in pack] == ["s/ü2", "s/ü3"]
        pack.append(stored(small_maps(2)))
    with PredictionPack(tmp_path) as pack:
        assert all(np.array_equal(pack.read(i), m) for i, m in small_maps(4).items())
    assert first < shard.stat().st_size


def test_a_damaged_map_is_refused_by_name_and_folder(tmp_path: Path) -> None:
    first, _ = written(tmp_path / "m", small_maps(2), small_maps(2, 2))
    shard = tmp_path / "m" / "00000.pack"
    damaged = bytearray(shard.read_bytes())
    damaged[first - 1] ^= 0xFF
    shard.write_bytes(damaged)
    with PredictionPack(tmp_path / "m") as pack:
        with pytest.raises(CorruptFileError, match=r'm: the label map of "s/ü1" fails its checksum'):
            pack.read("s/ü1")
        assert pack.read("s/ü3").shape == (2, 6)


WRITER = """
import sys, numpy as np
from pathlib import Path
from mad_backend.pool.predictions import EncodedMap, PredictionPack, StoredMap
rng = np.random.default_rng(0)
with PredictionPack(Path(sys.argv[1]), writable=True) as pack:
    for n in range(0, 100_000, 10):
        maps = [np.full((200, 200), i % 251, np.uint8) for i in range(n, n + 10)]
        maps = [m ^ rng.integers(0, 2, m.shape, np.uint8) for m in maps]
        pack.append([StoredMap(str(n + k), 1, EncodedMap.of(m)) for k, m in enumerate(maps)])
        print(n + 10, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_had_written_and_its_lock_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        while int(writer.stdout.readline()) < 60:
            pass
        with pytest.raises(StoreError, match="is being written by another process"):
            PredictionPack(tmp_path, writable=True)
        os.kill(writer.pid, signal.SIGKILL)
        lines = writer.stdout.read().split()
    count = int(lines[-1]) if lines else 60
    with PredictionPack(tmp_path, writable=True) as pack:
        assert len(pack) >= count
        assert len(pack) % 10 == 0
        for n in range(count):
            assert (pack.read(f"{n}") | 1 == (n % 251) | 1).all()


def test_a_reader_sees_what_a_writer_adds_once_it_refreshes(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    with store.open("m@0-abc") as reader:
        assert len(reader) == 0
        with store.open("m@0-abc", writable=True) as writer:
            for n in range(3):
                writer.append(stored({f"{n}": np.full((3, 3), n, np.uint8)}))
                assert f"{n}" not in reader
                reader.refresh()
                assert reader.read(f"{n}").tolist() == [[n] * 3] * 3


def test_the_same_map_gives_the_same_bytes() -> None:
    label_map = np.random.default_rng(3).integers(0, 5, (60, 70), np.uint8)
    assert EncodedMap.of(label_map) == EncodedMap.of(label_map.copy())


def test_asking_for_a_map_that_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    with PredictionPack(tmp_path / "none") as pack, pytest.raises(KeyError):
        pack.read("a")


def test_a_pack_opened_for_reading_cannot_be_written_and_creates_no_file(tmp_path: Path) -> None:
    with (
        PredictionPack(tmp_path / "none") as pack,
        pytest.raises(ValueError, match="not open for writing"),
    ):
        pack.append(stored({"a": np.zeros((1, 1), np.uint8)}))
    assert not list(tmp_path.iterdir())
