"""Which image a task means: by our item keys, by pool ids, by addresses, and whatever else stands there."""

import logging
from typing import Any

import pytest
from sqlalchemy import event

from mad_backend.core.records import PoolImage, ProjectRole
from mad_backend.errors import PoolError
from mad_backend.serving.pool_images import PoolImages, shown_id


@pytest.fixture
def pool(world: Any) -> PoolImages:
    return PoolImages(world.store, world.settings)


def ids(found: dict[int, Any]) -> dict[int, str]:
    return {n: place.image_id if isinstance(place, PoolImage) else place for n, place in found.items()}


def test_our_items_pool_ids_and_the_pool_s_own_addresses_are_pool_images(
    world: Any, pool: PoolImages
) -> None:
    tasks = [
        world.task("pool/3"),
        {"data": {"image": "pool:pool/1"}},
        {"data": {"image": str(world.root / "images" / "2.png")}},
        {"data": {"image": "https://example.com/2.png", "item": "of another team"}},
        {"data": {"image": "x.png", "item": "f" * 24}},
    ]
    assert ids(pool.places_of(tasks, "image")) == {
        0: "pool/3",
        1: "pool/1",
        2: "pool/2",
        3: "https://example.com/2.png",
        4: "x.png",
    }


def test_the_address_is_in_the_field_that_the_project_shows(pool: PoolImages) -> None:
    tasks = [{"data": {"photo": "a.png", "image": "b.png"}}, {"data": {"image": "b.png"}}]
    assert pool.places_of(tasks, "photo") == {0: "a.png"}


def test_tasks_without_an_address_are_left_out_and_named_in_the_log(
    world: Any, pool: PoolImages, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[Any] = [
        None,
        7,
        [],
        {},
        {"id": 5, "data": None},
        {"id": 6, "data": {"image": ["a.png"]}},
        {"id": "seven", "data": {"image": ""}},
        {"id": 10**400, "data": {"image": "a\nWARNING all is lost"}},
        {"id": 9, "data": {"image": "\ud800.png", "item": "\udfff" * 24}},
        {"id": 10, "data": {"image": "pool:nobody/knows"}},
        world.task("pool/0", 11, ProjectRole.RATING),
        world.task("pool/0", 12, ProjectRole.CHECK),
    ]
    assert pool.places_of(tasks, "image") == {}
    assert len(caplog.records) == len(tasks)
    assert "all is lost" not in caplog.text
    for named in (
        "task 5:",
        "task 6:",
        "task 'seven':",
        "task 9:",
        "task 12:",
        "without id:",
        '"nobody/knows"',
    ):
        assert named in caplog.text


def test_ids_of_tasks_are_shown_short() -> None:
    assert shown_id({"id": 311}) == "311"
    assert shown_id({"id": "x" * 100}) == repr("x" * 40)
    assert shown_id({"id": {"a": [1]}}) == shown_id({"id": 10**5000}) == shown_id(None) == "without id"


def test_the_database_is_asked_once_and_not_at_all_for_tasks_of_others(world: Any, pool: PoolImages) -> None:
    asked: list[str] = []
    engine = world.store.remote._db.engine
    event.listen(engine, "before_cursor_execute", lambda c, cursor, statement, *_: asked.append(statement))
    assert len(pool.places_of([world.task(f"pool/{n % 5}", n) for n in range(300)], "image")) == 300
    assert len([s for s in asked if s.startswith("SELECT")]) == 1
    asked.clear()
    pool.places_of([{"data": {"image": f"{n}.png", "item": f"item {n}"}} for n in range(300)], "image")
    assert not asked


def test_images_pushed_since_are_found_at_once_and_made_up_ids_do_not_list_the_pool_again(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    pool = PoolImages(world.store, world.settings, lambda: now)
    world.add_image("late")
    made_up = [{"data": {"image": "pool:pool/late"}}]
    assert pool.places_of(made_up, "image") == {}
    world.push(["pool/late", "pool/never"])
    pushed = [world.task("pool/late"), world.task("pool/never")]
    assert ids(pool.places_of(pushed, "image")) == ids(pool.places_of(made_up, "image")) == {0: "pool/late"}
    world.add_image("never")
    assert ids(pool.places_of(pushed, "image")) == {0: "pool/late"}
    now = 61.0
    assert ids(pool.places_of(pushed, "image")) == {0: "pool/late", 1: "pool/never"}


def test_where_the_pool_is_gone_the_last_listing_counts(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    pool = PoolImages(world.store, world.settings, lambda: now)
    (world.root / "images").rename(world.root / "elsewhere")
    now = 61.0
    tasks = [{"data": {"image": "pool:pool/new"}}, {"data": {"image": "pool:pool/0"}}]
    with caplog.at_level(logging.WARNING):
        assert ids(pool.places_of(tasks, "image")) == {1: "pool/0"}
    assert "there is no folder" in caplog.text
    with pytest.raises(PoolError, match="no folder"):
        PoolImages(world.store, world.settings)
