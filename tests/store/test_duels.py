"""Duels in the database: whom they were between, and images that no round may use."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mad_backend.core.duel import Duel, DuelImage, Duellist
from mad_backend.store.store import Store

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DUEL = Duel(
    Duellist("f@0", "f@0-abc"),
    Duellist("g", "g-def"),
    30,
    7,
    (DuelImage("pool/b", 0.75), DuelImage("pool/a", 1 / 3)),
    NOON,
)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_duel_is_kept_as_it_was_drawn_and_its_images_are_spent(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    sqlite = f"sqlite:///{tmp_path}/mad.sqlite3"
    store = Store(sqlite if kind == "sqlite" else request.getfixturevalue("postgres_url"))
    assert store.duels.of("f@0-abc", "g-def") is None
    other = replace(DUEL, second=Duellist("g", "g-new"), images=(), created_at=NOON + timedelta(hours=1))
    store.duels.record(other)
    store.duels.record(DUEL)
    store.duels.record(replace(DUEL, images=(DuelImage("pool/c", 0.5),)))
    assert store.duels.all() == [DUEL, other]
    assert store.duels.of("g-def", "f@0-abc") == DUEL
    assert store.duels.images() == store.choices.spent() == {"pool/a", "pool/b"}
    store.close()
