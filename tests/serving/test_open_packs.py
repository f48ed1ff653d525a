"""Which files of label maps stay open, and for whom."""

from pathlib import Path

import numpy as np
import pytest

from mad_backend.pool.predictions import EncodedMap, PredictionStore, StoredMap
from mad_backend.serving.open_packs import OpenPacks


def stored(root: Path, key: str, image_id: str, class_id: int) -> None:
    with PredictionStore(root).open(key, writable=True) as pack:
        pack.append([StoredMap(image_id, 7, EncodedMap.of(np.full((2, 3), class_id, np.uint8)))])


def test_a_pack_that_was_replaced_is_closed_once_nobody_reads_it(tmp_path: Path) -> None:
    stored(tmp_path, "old", "a", 1)
    stored(tmp_path, "new", "a", 2)
    packs = OpenPacks(PredictionStore(tmp_path))
    with packs.hold("old") as old:
        with packs.hold("new") as new:
            assert (old.read("a").max(), new.read("a").max()) == (1, 2)
        assert old.read("a").max() == 1
    with pytest.raises(ValueError, match="closed"):
        old.read("a")
    with packs.hold("new") as again:
        assert again is new
    packs.close()
    with pytest.raises(ValueError, match="closed"):
        new.read("a")


def test_what_was_added_since_is_there_at_the_next_hold(tmp_path: Path) -> None:
    packs = OpenPacks(PredictionStore(tmp_path))
    with packs.hold("key") as pack:
        assert "a" not in pack
    stored(tmp_path, "key", "a", 3)
    with packs.hold("key") as pack:
        assert pack.read("a").max() == 3
    packs.close()


def test_a_pack_is_still_read_when_the_service_closes(tmp_path: Path) -> None:
    stored(tmp_path, "key", "a", 3)
    packs = OpenPacks(PredictionStore(tmp_path))
    with packs.hold("key") as pack:
        packs.close()
        assert pack.read("a").max() == 3
    with pytest.raises(ValueError, match="closed"):
        pack.read("a")
