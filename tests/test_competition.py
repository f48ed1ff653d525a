"""From stored scores to M, recorded for a round."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from mad_backend.competition import StoredPair, choose_selection, find_selection
from mad_backend.core.metrics import joint_histogram
from mad_backend.core.records import Failure, Metric
from mad_backend.core.scores import PairScores, scores_of
from mad_backend.core.selection import Window
from mad_backend.pool.ids import image_keys
from mad_backend.pool.scores import ScoreStore
from mad_backend.settings import SelectionSettings
from mad_backend.store.store import Store

WINDOWS = {1: Window(0.0, 1.0, 30)}
COMPETITORS = {"g": "g-key", "h": "h-key"}
Pairs = dict[str, StoredPair]
IDS = [f"pool/{n}" for n in range(8)]


def scores(seed: int) -> PairScores:
    """Image n has n + 1 of 100 pixels that only the target takes for class 1: d grows with n."""
    joints = []
    for n in range(len(IDS)):
        target, other = np.zeros((2, 10, 10), np.uint8)
        target[0, : n + 1], other[9, : seed + 1] = 1, 1
        joints.append(joint_histogram(target, other, 2))
    looks = np.array([1, 1, 2, 2, 4, 4, 8, 8], np.uint64)
    return scores_of(IDS, np.ones(len(IDS), np.uint64), looks, joints)


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    found = ScoreStore(tmp_path / "scores")
    for seed, key in enumerate(COMPETITORS.values()):
        found.append("f@0", key, scores(seed))
    return {name: StoredPair(found, "f@0", key) for name, key in COMPETITORS.items()}


def chosen(pairs: Pairs, settings: SelectionSettings, excluded: tuple[str, ...] = ()) -> list[str]:
    return [c.image_id for c in find_selection(pairs, WINDOWS, settings, excluded).candidates]


def test_m_is_found_over_all_competitors_and_recorded_with_its_provenance(store: Store, pairs: Pairs) -> None:
    found = choose_selection(store, 1, pairs, WINDOWS, SelectionSettings(n3=2))
    assert [c.image_id for c in found.candidates] == ["pool/6", "pool/7"]
    assert len(found.candidates[1].provenance) == 4
    assert store.choices.selection(1) == list(found.candidates)
    assert found.images == {"g": 8, "h": 8}


def test_images_of_an_earlier_s_or_t_and_vetoed_ones_are_left_out(store: Store, pairs: Pairs) -> None:
    store.choices.record_cut(1, [Failure("pool/7", 1.0)], ["pool/6"], {"pool/5": "ann"})
    store.rounds.create(2, 8, datetime(2026, 1, 2, tzinfo=UTC))
    found = choose_selection(store, 2, pairs, WINDOWS, SelectionSettings(n3=1))
    assert [c.image_id for c in found.candidates] == ["pool/4"]


def test_images_in_quarantine_are_left_out_of_m_though_nobody_chose_them_yet(
    store: Store, pairs: Pairs
) -> None:
    found = choose_selection(store, 1, pairs, WINDOWS, SelectionSettings(n3=1), ["pool/7", "pool/6"])
    assert [c.image_id for c in found.candidates] == ["pool/5"]


def test_images_that_left_the_pool_are_left_out(pairs: Pairs) -> None:
    for pair in pairs.values():
        pair.scores.set_absent("f@0", pair.competitor, image_keys(IDS[:7]))
    assert chosen(pairs, SelectionSettings(n3=1)) == ["pool/6"]


def test_metric_and_near_duplicates_come_from_settings(pairs: Pairs) -> None:
    assert chosen(pairs, SelectionSettings(n3=2, near_duplicates=0)) == ["pool/5", "pool/7"]
    assert chosen(pairs, SelectionSettings(n3=2, near_duplicates=16)) == ["pool/7"]
    by_pixels = find_selection(pairs, WINDOWS, SelectionSettings(metric=Metric.PIXEL_AGREEMENT), ())
    assert by_pixels.cells[0].largest == pytest.approx(0.09)
