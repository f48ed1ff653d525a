"""ML backends of other parties as models: what they are sent, and how their answers are read."""

from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Fit, Grid
from mad_backend.core.labels import VOID, LabelClass, LabelSet, RgbImage
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from tests.models.label_studio.conftest import Load, Start
from tests.models.ml_backend import Draw, bitmasks, brushes, by_brightness, fetched, polygons, rectangle

STREET = LabelSet(
    "street", (LabelClass("cat", (0, 0, 0)), LabelClass("dog", (1, 1, 1))), has_background=False
)


class TestRegions:
    @pytest.mark.parametrize("draw", [bitmasks, brushes, polygons])
    def test_regions_of_every_format_give_the_backends_map(
        self, start: Start, load: Load, frames: list[Frame], draw: Draw
    ) -> None:
        maps = load(start(draw=draw)).predict(frames)
        for label_map, frame in zip(maps, frames, strict=True):
            assert label_map is not None
            assert np.array_equal(label_map, by_brightness(frame.rgb))
        assert {k for m in maps if m is not None for k in np.unique(m).tolist()} == {0, 1, 2}

    def test_later_regions_are_painted_over_earlier_ones(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start(draw=lambda rgb: [rectangle(rgb, "cat", 0, 100), rectangle(rgb, "dog", 50, 50)])
        (label_map,) = load(backend).predict(frames[:1])
        assert label_map is not None
        assert label_map[:, :24].tolist() == [[1] * 24] * 64
        assert label_map[:, 24:].tolist() == [[2] * 24] * 64

    def test_masks_of_another_size_are_brought_to_the_frames(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start(draw=lambda rgb: bitmasks(rgb.repeat(2, axis=0).repeat(2, axis=1)))
        (label_map,) = load(backend).predict(frames[:1])
        assert label_map is not None
        assert np.array_equal(label_map, by_brightness(frames[0].rgb))

    def test_an_empty_result_means_that_everything_is_background(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        (label_map,) = load(start(draw=lambda _rgb: [])).predict(frames[:1])
        assert label_map is not None
        assert not label_map.any()

    def test_an_empty_result_means_void_where_there_is_no_background(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        (label_map,) = load(start(draw=lambda _rgb: []), STREET).predict(frames[:1])
        assert label_map is not None
        assert (label_map == VOID).all()

    def test_labels_are_mapped_and_void_is_void(self, start: Start, load: Load, frames: list[Frame]) -> None:
        def draw(rgb: RgbImage) -> list[Any]:
            named = [("kitty", 0), ("lamp", 25), ("void", 50)]
            return [rectangle(rgb, name, x, 25) for name, x in named]

        model = load(start(draw=draw), classes={"kitty": "cat", "lamp": "ignore"})
        (label_map,) = model.predict(frames[:1])
        assert label_map is not None
        assert label_map[0, ::12].tolist() == [1, VOID, VOID, 0]
        assert model.class_ids == {0, 1, 2}

    def test_a_label_that_is_no_class_is_named(self, start: Start, load: Load, frames: list[Frame]) -> None:
        backend = start(draw=lambda rgb: [rectangle(rgb, "zebra", 0, 50)])
        wanted = r'model "g-1": image s/0: .* label "zebra", but the model has the classes void, background, cat, dog'
        with pytest.raises(ModelError, match=wanted):
            load(backend).predict(frames[:1])

    def test_with_a_rule_for_the_rest_no_label_is_unknown(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start(draw=lambda rgb: [rectangle(rgb, "zebra", 0, 100)])
        (label_map,) = load(backend, classes={"*": "ignore"}).predict(frames[:1])
        assert label_map is not None
        assert (label_map == VOID).all()


class TestRequests:
    def test_tasks_are_sent_as_label_studio_sends_them(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start()
        load(backend, batch_size=2).predict(frames)
        bodies = [request.body for request in backend.predictions()]
        assert [len(body["tasks"]) for body in bodies] == [2, 2, 1]
        assert all(set(body) == {"tasks", "project", "label_config", "params"} for body in bodies)
        assert bodies[0]["params"] == {"login": None, "password": None, "context": None}
        assert '<Label value="cat"/>' in bodies[0]["label_config"]
        tasks = [task for body in bodies for task in body["tasks"]]
        assert [task["id"] for task in tasks] == [1, 2, 3, 4, 5]
        assert set(tasks[0]) == {"id", "data", "meta", "annotations", "predictions"}
        assert list(tasks[0]["data"]) == ["image"]
        setup = backend.requests[0]
        assert (setup.method, setup.path, setup.body["access_token"]) == ("POST", "/setup", "")
        assert setup.body["schema"] == bodies[0]["label_config"]

    def test_a_label_configuration_names_the_tasks_key_and_the_labels(
        self, start: Start, load: Load, frames: list[Frame], tmp_path: Path
    ) -> None:
        config = tmp_path / "config.xml"
        config.write_text(
            '<View><Image name="i" value="$photo"/><BrushLabels name="b" toName="i">'
            '<Label value="kitty"/><Label value="dog"/></BrushLabels></View>'
        )
        backend = start(variable="photo", draw=lambda rgb: [rectangle(rgb, "kitty", 0, 100)])
        (label_map,) = load(backend, config=config, classes={"kitty": "cat"}).predict(frames[:1])
        assert label_map is not None
        assert (label_map == 1).all()
        assert backend.predictions()[0].body["label_config"] == config.read_text()

    def test_a_backend_that_sees_the_same_storage_opens_the_images_themselves(
        self, start: Start, load: Load, tmp_path: Path
    ) -> None:
        rgb = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
        path = tmp_path / "a.png"
        Image.fromarray(rgb).save(path)
        grid = Grid(16, Fit.CROP)
        frame = Frame("s/a", grid.image(rgb), rgb.shape[:2], str(path))
        (label_map,) = load(start(), grid=grid, images="address").predict([frame])
        assert label_map is not None
        assert np.array_equal(label_map, grid.label_map(by_brightness(rgb)))

    def test_an_image_without_an_address_is_named(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        with pytest.raises(ModelError, match=r'model "g-1": image s/0 has no address .* images: serve'):
            load(start(), images="address").predict(frames[:1])

    def test_frames_are_served_during_their_request_only(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start()
        model = load(backend)
        model.predict(frames[:2])
        address = backend.predictions()[0].body["tasks"][0]["data"]["image"]
        assert address.startswith("http://127.0.0.1:")
        with pytest.raises(HTTPError, match="404"):
            fetched(address)
        model.close()
        with pytest.raises(OSError, match="refused"):
            fetched(address)
