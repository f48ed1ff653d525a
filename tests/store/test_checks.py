"""Verdicts in the database: what checkers say may change, what ops settle may not."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mad_backend.core.records import Check, ErrorType, HumanMask, Verdict
from mad_backend.store.store import Store


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with round 1 in it, in each kind of database."""
    sqlite = f"sqlite:///{tmp_path}/mad.sqlite3"
    opened = Store(sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    opened.rounds.create(1, 7, NOW)
    yield opened
    opened.close()


NOW = datetime(2026, 1, 1, 12, 30, 1, 250, tzinfo=UTC)
FULL = Check(
    image_id="cat",
    mask_sha256="aa",
    verdict=Verdict.CORRECTED,
    checker="bob@example.com",
    decided_at=NOW,
    errors=(ErrorType.BOUNDARY, ErrorType.WRONG_CLASS),
    annotation_id=7,
    changed_share=0.25,
    path="cat-checked.png",
    sha256="bb",
    notes=("odd",),
    lead_time_s=61.5,
)


def test_a_check_is_read_as_it_was_written_and_a_later_one_replaces_it(store: Store) -> None:
    assert store.checks.record(1, FULL)
    assert store.checks.record(1, FULL)
    assert store.checks.all(1) == [FULL]
    later = Check("cat", "aa", Verdict.ACCEPTED, "cat@example.com", NOW + timedelta(hours=1))
    assert store.checks.record(1, later)
    assert store.checks.all(1) == [later]
    assert store.checks.all(2) == []


def test_each_version_of_a_label_map_has_a_check_of_its_own_older_first(store: Store) -> None:
    second = replace(FULL, mask_sha256="cc", decided_at=NOW + timedelta(seconds=1))
    store.checks.record(1, second)
    store.checks.record(1, FULL)
    assert store.checks.all(1) == [FULL, second]
    store.checks.forget(1, "cat", "aa")
    assert store.checks.all(1) == [second]


def test_what_ops_settled_is_neither_overwritten_nor_forgotten_by_a_pull(store: Store) -> None:
    settled = replace(FULL, verdict=Verdict.AUTHOR)
    store.checks.settle(1, settled)
    assert not store.checks.record(1, FULL)
    store.checks.forget(1, "cat", "aa")
    assert store.checks.all(1) == [settled]
    again = replace(FULL, verdict=Verdict.CHECKER)
    store.checks.settle(1, again)
    assert store.checks.all(1) == [again]


def test_a_drop_ends_when_ops_settle_otherwise(store: Store) -> None:
    store.checks.settle(1, replace(FULL, verdict=Verdict.DROPPED))
    settled = replace(FULL, mask_sha256="cc", verdict=Verdict.AUTHOR)
    store.checks.settle(1, settled)
    assert store.checks.all(1) == [settled]


def test_the_final_masks_are_the_corrected_ones(store: Store) -> None:
    drawn = HumanMask("cat", "cat.png", "aa", "ann", 3, lead_time_s=600.25)
    store.remote.record_mask(1, drawn)
    assert store.final_masks(1) == {"cat": drawn}
    store.checks.record(1, FULL)
    assert store.final_masks(1) == {"cat": replace(drawn, path="cat-checked.png", sha256="bb")}
    store.checks.settle(1, replace(FULL, verdict=Verdict.DROPPED))
    assert store.final_masks(1) == {}
