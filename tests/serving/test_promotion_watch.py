"""Looking for promotions, in a database that may be away."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from mad_backend.serving.promotion_watch import PromotionWatch
from mad_backend.store.store import Store
from tests.served_world import NOW, World
from tests.serving.kept_targets import until


def version_of(watch: PromotionWatch) -> str | None:
    return watch.wanted.version.version if watch.wanted else None


def test_what_is_promoted_is_wanted_and_a_replaced_checkpoint_is_seen(world: World) -> None:
    with closing(PromotionWatch(world.store, world.settings, 0.01)) as watch:
        until(lambda: version_of(watch) == "scenes@0")
        world.store.versions.promote("scenes@1", NOW, "test")
        until(lambda: version_of(watch) == "scenes@1")
        before = watch.wanted
        os.utime(world.root / "f1", (1, 1))
        until(lambda: watch.wanted != before)
        assert version_of(watch) == "scenes@1"
        (world.root / "f1").rename(world.root / "elsewhere")
        until(lambda: watch.wanted is not None and watch.wanted.stamp == (0, 0))


def test_while_the_database_is_away_the_last_look_counts_and_it_is_told_once(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder, aside = tmp_path / "database", tmp_path / "aside"
    with closing(Store(f"sqlite:///{folder}/mad.sqlite3")) as store:
        store.versions.record("scenes@0", 0, None, NOW)
        store.versions.promote("scenes@0", NOW, "test")
        with closing(PromotionWatch(store, world.settings, 0.01)) as watch:
            until(lambda: version_of(watch) == "scenes@0")
            folder.rename(aside)
            store.close()  # so that its file is opened again
            until(lambda: watch.is_away)
            aside.rename(folder)
            until(lambda: "the database is back" in caplog.messages)
            assert version_of(watch) == "scenes@0"
    assert len([m for m in caplog.messages if "nobody can tell what is promoted" in m]) == 1
