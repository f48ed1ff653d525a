"""The service behind /predict: whose answer it is, that it is complete, and that versions never mix."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame, ProjectRole
from mad_backend.errors import ModelError, PoolError, StoreError
from mad_backend.label_studio.composition import compose
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.pool.ids import content_digest
from mad_backend.pool.images import read_rgb
from mad_backend.pool.predictions import MAGIC, EncodedMap, PredictionStore, StoredMap
from mad_backend.serving.target_service import TargetPrediction, TargetService
from mad_backend.settings import ServeSettings, SourceSettings
from mad_backend.targets import load_target
from tests.served_world import asking

OpenService = Callable[..., TargetService]


def label_map_of(world: Any, answer: TargetPrediction) -> LabelMap:
    assert answer.regions
    return compose(answer.regions, world.labels, 40, 60).label_map


def class_name(answer: TargetPrediction) -> str | None:
    """The label of the object in the left half."""
    labels = {r["value"]["bitmasklabels"][0] for r in answer.regions}
    assert len(labels) <= 1
    return labels.pop() if labels else None


def scanned(world: Any, image_id: str, class_id: int, digest: int | None = None) -> None:
    """Stores a label map as a scan under the promoted version does, of the image's content as it is now."""
    stem = image_id.partition("/")[2]
    digest = (
        content_digest((world.root / "images" / f"{stem}.png").read_bytes()) if digest is None else digest
    )
    model = load_target(world.store.versions.promoted(), world.settings, world.labels, world.grid)
    with PredictionStore(world.root / "predictions").open(model.key, writable=True) as pack:
        label_map = np.full(world.grid.shape_for(40, 60), class_id, np.uint8)
        pack.append([StoredMap(image_id, digest, EncodedMap.of(label_map))])


def test_the_promoted_model_answers_at_the_image_s_own_size(world: Any, service: TargetService) -> None:
    (answer,) = service.predict(asking([world.task("pool/3")]))
    assert answer.model_version == "scenes@0"
    assert {(r["from_name"], r["to_name"], r["type"]) for r in answer.regions} == {
        ("mask", "image", "bitmasklabels")
    }
    np.testing.assert_array_equal(label_map_of(world, answer), world.restored(1))


def test_label_maps_of_a_scan_come_before_the_model_also_those_added_later(
    world: Any, service: TargetService
) -> None:
    tasks = [world.task("pool/0"), world.task("pool/1")]
    assert [class_name(a) for a in service.predict(asking(tasks))] == ["house", "house"]
    scanned(world, "pool/1", 3)
    assert [class_name(a) for a in service.predict(asking(tasks))] == ["house", "car"]
    scanned(world, "pool/0", 4)
    answers = service.predict(asking(tasks))
    assert [class_name(a) for a in answers] == ["person", "car"]
    assert (label_map_of(world, answers[0]) == 4).all()


def test_predictions_are_looked_for_in_the_cache_where_settings_name_one(
    world: Any, open_service: OpenService
) -> None:
    scanned(world, "pool/0", 3)
    (world.root / "cache").mkdir()
    (world.root / "predictions").rename(world.root / "cache" / "predictions")
    settings = world.settings.model_copy(update={"cache": world.root / "cache"})
    (answer,) = open_service(settings).predict(asking([world.task("pool/0")]))
    assert class_name(answer) == "car"


def test_two_hundred_tasks_with_some_broken_have_two_hundred_answers_in_order(
    world: Any, service: TargetService, caplog: pytest.LogCaptureFixture
) -> None:
    (world.root / "images" / "2.png").write_bytes(b"no image")
    broken = [
        None,
        7,
        [],
        {},
        {"id": 5, "data": None},
        {"data": {"item": ["x"]}},
        {"data": {"item": "\ud800"}},
    ]
    broken += [
        {"id": 6, "data": {"item": "0" * 24}},
        {"id": 8, "data": {"image": "x.jpg"}},
        world.task("pool/2"),
    ]
    tasks = [broken[n % 10] if n % 3 == 0 else world.task("pool/1", n) for n in range(200)]
    with caplog.at_level(logging.INFO, "mad_backend"):
        answers = service.predict(asking(tasks))
    assert [class_name(a) for a in answers] == [None if n % 3 == 0 else "house" for n in range(200)]
    assert {a.model_version for a in answers} == {"scenes@0"}
    assert "scenes@0 answered 133 of 200 tasks" in caplog.text
    assert "is not in a format that is read" in caplog.text


def test_tasks_of_a_rating_project_get_no_regions(world: Any, service: TargetService) -> None:
    tasks = [world.task("pool/0", role=ProjectRole.RATING), world.task("pool/0")]
    assert [class_name(a) for a in service.predict(asking(tasks))] == [None, "house"]


def test_no_tasks_no_answers(service: TargetService) -> None:
    assert service.predict(asking([])) == []


def test_an_image_the_model_has_no_answer_for_gets_no_regions(
    world: Any, service: TargetService, caplog: pytest.LogCaptureFixture
) -> None:
    (world.root / "f0" / "pool" / "1.png").unlink()
    assert [class_name(a) for a in service.predict(asking([world.task("pool/1"), world.task("pool/0")]))] == [
        None,
        "house",
    ]
    assert 'model "scenes@0" has no answer for image "pool/1"' in caplog.text


def test_a_damaged_label_map_is_predicted_anew(
    world: Any, service: TargetService, caplog: pytest.LogCaptureFixture
) -> None:
    scanned(world, "pool/0", 3)
    scanned(world, "pool/1", 3)
    (pack,) = (world.root / "predictions").rglob("*.pack")
    content = bytearray(pack.read_bytes())
    content[content.rindex(MAGIC) - 1] ^= 0xFF  # the end of the first of two blocks
    pack.write_bytes(content)
    answers = service.predict(asking([world.task("pool/0"), world.task("pool/1")]))
    assert [class_name(a) for a in answers] == ["house", "car"]
    assert "fails its checksum" in caplog.text


def test_images_of_a_store_are_answered_like_files(world: Any, open_service: OpenService) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/pool/0.png", (world.root / "images" / "0.png").read_bytes())
    pool = (SourceSettings(name="pool", images="memory://pool"),)
    service = open_service(world.settings.model_copy(update={"pool": pool}))
    tasks = [world.task("pool/0"), world.task("pool/1")]
    assert [class_name(a) for a in service.predict(asking(tasks))] == ["house", None]
    scanned(world, "pool/0", 3)
    assert class_name(service.predict(asking(tasks[:1]))[0]) == "car"
    memory.store.clear()


def test_images_that_joined_the_pool_after_the_start_are_found(world: Any, service: TargetService) -> None:
    world.push([world.add_image("late")])
    assert [class_name(a) for a in service.predict(asking([world.task("pool/late")]))] == ["house"]


def test_images_that_left_the_pool_get_no_regions_even_where_the_pool_is_gone(
    world: Any, service: TargetService, open_service: OpenService
) -> None:
    world.push(["pool/0", "pool/never"])
    tasks = [world.task("pool/never"), world.task("pool/0")]
    assert [class_name(a) for a in service.predict(asking(tasks))] == [None, "house"]
    (world.root / "images").rename(world.root / "elsewhere")
    assert [class_name(a) for a in service.predict(asking(tasks))] == [None, None]
    with pytest.raises(PoolError, match="no folder"):
        open_service()


def test_another_promotion_changes_the_answers_and_back(world: Any, service: TargetService) -> None:
    seen = []
    for version in ("scenes@0", "scenes@1", "scenes@0"):
        world.store.versions.promote(version, world.store.versions.get(version).created_at, "test")
        (answer,) = service.predict(asking([world.task("pool/0")]))
        seen.append((answer.model_version, class_name(answer)))
    assert seen == [("scenes@0", "house"), ("scenes@1", "tree"), ("scenes@0", "house")]


def test_promotions_while_requests_run_never_mix_versions(world: Any, service: TargetService) -> None:
    scanned(world, "pool/0", 1)
    tasks = [world.task(f"pool/{n % 5}", n) for n in range(10)]
    own = {"scenes@0": "house", "scenes@1": "tree"}
    seen = set()

    def ask() -> list[TargetPrediction]:
        return service.predict(asking(tasks))

    with ThreadPoolExecutor(4) as threads:
        pending = [threads.submit(ask) for _ in range(8)]
        pending[0].result()
        for promoted in ("scenes@1", "scenes@0", "scenes@1", "scenes@0", "scenes@1"):
            world.store.versions.promote(promoted, world.store.versions.get(promoted).created_at, "t")
            pending += [threads.submit(ask) for _ in range(3)]
        for request in pending:
            answers = request.result()
            (version,) = {a.model_version for a in answers}
            assert version is not None
            assert [class_name(a) for a in answers] == [own[version]] * len(tasks)
            seen.add(version)
    assert seen == set(own)


def test_before_the_first_promotion_there_is_no_version_and_no_answer(
    world: Any, open_service: OpenService, tmp_path_factory: pytest.TempPathFactory, store: Any
) -> None:
    fresh = type(store)(f"sqlite:///{tmp_path_factory.mktemp('fresh')}/mad.sqlite3")
    service = open_service(store=fresh)
    assert service.served_version() is None
    assert service.predict(asking([{"data": {"item": "x"}}])) == [TargetPrediction(None)]
    fresh.rounds.create(1, 7, world.store.versions.get("scenes@0").created_at)
    fresh.remote.record_tasks(1, ProjectRole.SEGMENTATION, {"pool/0": 1})
    item = fresh.remote.item_key(1, ProjectRole.SEGMENTATION, "pool/0")
    with pytest.raises(StoreError, match="no target version is promoted yet"):
        service.predict(asking([{"data": {"item": item}}]))
    fresh.close()


def test_a_checkpoint_that_is_missing_is_an_error_until_it_is_there(
    world: Any, service: TargetService
) -> None:
    (world.root / "f1").rename(world.root / "away")
    world.store.versions.promote("scenes@1", world.store.versions.get("scenes@1").created_at, "test")
    assert service.served_version() == "scenes@1"
    with pytest.raises(ModelError, match="f1"):
        service.predict(asking([world.task("pool/0")]))
    (world.root / "away").rename(world.root / "f1")
    assert [class_name(a) for a in service.predict(asking([world.task("pool/0")]))] == ["tree"]


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random SegFormers of 8 classes, some 20,000 weights each, as `save_pretrained` leaves them."""
    torch = pytest.importorskip("torch")
    define_missing_operators()
    transformers = pytest.importorskip("transformers")
    names = ("background", "house", "tree", "car", "person", "boat", "animal", "balloon")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(names)),
        label2id={name: n for n, name in enumerate(names)},
    )
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        folders.append(tmp_path_factory.mktemp("network") / f"f{seed}")
        transformers.SegformerForSemanticSegmentation(config).save_pretrained(folders[-1])
    return folders


def test_a_real_network_is_served_and_its_fine_tuned_version_after_it(
    world: Any, open_service: OpenService, networks: list[Path]
) -> None:
    settings = world.with_target(kind="hf", path=networks[0])
    settings = settings.model_copy(update={"serve": ServeSettings(min_region=1)})
    world.store.versions.record("scenes@2", 2, str(networks[1]), world.store.versions.all()[0].created_at)
    service = open_service(settings)
    rgb = read_rgb(world.root / "images" / "0.png")
    frame = Frame("pool/0", world.grid.image(rgb), rgb.shape[:2])
    maps = []
    for name in ("scenes@0", "scenes@2"):
        version = world.store.versions.get(name)
        world.store.versions.promote(name, version.created_at, "test")
        (answer,) = service.predict(asking([world.task("pool/0")]))
        assert answer.model_version == name
        model = load_target(version, settings, world.labels, Grid(32))
        assert model.name == name
        (expected,) = model.predict([frame])
        assert expected is not None
        maps.append(world.grid.restore(expected, 40, 60))
        found = compose(answer.regions, world.labels, 40, 60).label_map
        np.testing.assert_array_equal(found, maps[-1])
    assert (maps[0] != maps[1]).any()
