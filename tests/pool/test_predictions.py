"""The pack of label maps: round trip, torn writes, killed writers, readers beside a writer, flipped bytes."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mad_backend.core.labels import LabelMap
from mad_backend.errors import CorruptFileError
from mad_backend.pool.predictions import PredictionPack, PredictionStore

MAPS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20))


def written(path: Path, maps: dict[str, LabelMap]) -> list[int]:
    """Writes a pack; returns the file's size after each map."""
    sizes = []
    with PredictionPack(path, writable=True) as pack:
        for image_id, label_map in maps.items():
            pack.append(image_id, label_map)
            pack.flush()
            sizes.append(path.stat().st_size)
    return sizes


def small_maps(n: int) -> dict[str, LabelMap]:
    return {f"s/ü{i}": np.full((2, 3 + i), i, np.uint8) for i in range(n)}


@given(st.dictionaries(st.text(min_size=1, max_size=30), MAPS, max_size=6))
@settings(max_examples=40, deadline=None)
def test_what_was_written_is_read_back_before_and_after_reopening(maps: dict[str, LabelMap]) -> None:
    maps = {i: m for i, m in maps.items() if i.isprintable()}
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "m.pack"
        with PredictionPack(path, writable=True) as pack:
            for image_id, label_map in maps.items():
                pack.append(image_id, label_map)
                assert (pack.read(image_id) == label_map).all()
        with PredictionPack(path) as pack:
            assert len(pack) == len(maps)
            assert pack.missing(["not there", *maps]) == (["not there"] if "not there" not in maps else [])
            for image_id, label_map in maps.items():
                found = pack.read(image_id)
                assert found.shape == label_map.shape
                assert (found == label_map).all()


def test_a_later_map_of_the_same_image_replaces_the_earlier(tmp_path: Path) -> None:
    path = tmp_path / "m.pack"
    for value in (1, 2):
        written(path, {"a": np.full((1, 1), value, np.uint8)})
    with PredictionPack(path) as pack:
        assert pack.read("a").tolist() == [[2]]


def test_a_pack_cut_off_at_any_byte_keeps_every_complete_map_and_can_be_continued(tmp_path: Path) -> None:
    maps = small_maps(4)
    sizes = written(tmp_path / "whole.pack", maps)
    whole = (tmp_path / "whole.pack").read_bytes()
    path = tmp_path / "torn.pack"
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        complete = [i for i, size in zip(maps, sizes, strict=True) if size <= end]
        with PredictionPack(path) as reader:
            assert [i for i in maps if i in reader] == complete
        with PredictionPack(path, writable=True) as pack:
            assert pack.missing(maps) == [i for i in maps if i not in complete]
            pack.append("new", np.full((1, 2), 9, np.uint8))
        with PredictionPack(path) as pack:
            assert len(pack) == len(complete) + 1
            assert all((pack.read(i) == maps[i]).all() for i in complete)
            assert pack.read("new").tolist() == [[9, 9]]


def test_a_flipped_byte_never_gives_a_wrong_map(tmp_path: Path) -> None:
    maps = small_maps(3)
    written(tmp_path / "whole.pack", maps)
    whole = (tmp_path / "whole.pack").read_bytes()
    path = tmp_path / "flipped.pack"
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
        with PredictionPack(path) as pack:
            for image_id in maps:
                try:
                    if image_id in pack:
                        assert pack.read(image_id).tobytes() == maps[image_id].tobytes()
                        assert pack.read(image_id).shape == maps[image_id].shape
                except CorruptFileError:
                    refused += 1
    assert refused


def test_a_damaged_map_is_refused_by_name_and_file(tmp_path: Path) -> None:
    path = tmp_path / "m.pack"
    first, _ = written(path, small_maps(2))
    damaged = bytearray(path.read_bytes())
    damaged[first - 1] ^= 0xFF
    path.write_bytes(damaged)
    with PredictionPack(path) as pack:
        with pytest.raises(CorruptFileError, match=r'm\.pack: the label map of "s/ü0" fails its checksum'):
            pack.read("s/ü0")
        assert pack.read("s/ü1").shape == (2, 4)


WRITER = """
import sys, numpy as np
from pathlib import Path
from mad_backend.pool.predictions import PredictionPack
rng = np.random.default_rng(0)
with PredictionPack(Path(sys.argv[1]), writable=True) as pack:
    for n in range(100_000):
        pack.append(f"{n}", np.full((200, 200), n % 251, np.uint8) ^ rng.integers(0, 2, (200, 200), np.uint8))
        if n % 10 == 9:
            pack.flush()
            print(n + 1, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_had_flushed(tmp_path: Path) -> None:
    path = tmp_path / "m.pack"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        while int(writer.stdout.readline()) < 60:
            pass
        os.kill(writer.pid, signal.SIGKILL)
        lines = writer.stdout.read().split()
    flushed = int(lines[-1]) if lines else 60
    with PredictionPack(path, writable=True) as pack:
        assert len(pack) >= flushed
        for n in range(flushed):
            assert (pack.read(f"{n}") | 1 == (n % 251) | 1).all()
        pack.append("after", np.zeros((1, 1), np.uint8))
    with PredictionPack(path) as pack:
        assert "after" in pack


def test_a_reader_sees_what_a_writer_adds_once_it_refreshes(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path)
    with store.open("m@0-abc") as reader:
        assert len(reader) == 0
        with store.open("m@0-abc", writable=True) as writer:
            for n in range(3):
                writer.append(f"{n}", np.full((3, 3), n, np.uint8))
                writer.flush()
                assert f"{n}" not in reader
                reader.refresh()
                assert reader.read(f"{n}").tolist() == [[n] * 3] * 3


def test_asking_for_a_map_that_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    with PredictionPack(tmp_path / "none.pack") as pack, pytest.raises(KeyError):
        pack.read("a")


def test_a_pack_opened_for_reading_cannot_be_written_and_creates_no_file(tmp_path: Path) -> None:
    with (
        PredictionPack(tmp_path / "none.pack") as pack,
        pytest.raises(ValueError, match="not open for writing"),
    ):
        pack.append("a", np.zeros((1, 1), np.uint8))
    assert not list(tmp_path.iterdir())
