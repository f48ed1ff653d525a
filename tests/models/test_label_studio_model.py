"""ML backends of other parties as models: what they are sent, how they are read, and every way in which they fail."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Event
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Fit, Grid
from mad_backend.core.labels import VOID, LabelClass, LabelSet, RgbImage
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.label_studio.backend_config import bitmask_config
from mad_backend.models.frame_server import FrameServer
from mad_backend.models.label_studio_client import MlBackendClient, _seconds, credentials
from mad_backend.models.label_studio_model import MOST_FAILURES, LabelStudioModel
from mad_backend.models.registry import stored_key
from mad_backend.settings import ModelSettings
from tests.models.ml_backend import (
    Draw,
    Fault,
    MlBackend,
    bitmasks,
    brushes,
    by_brightness,
    fetched,
    polygons,
    rectangle,
    running,
)

GRID = Grid(64)
STREET = LabelSet(
    "street", (LabelClass("cat", (0, 0, 0)), LabelClass("dog", (1, 1, 1))), has_background=False
)


class Quick(LabelStudioModel):
    timeout_s = 5.0
    backoff_s = 0.01


@pytest.fixture
def start() -> Iterator[Callable[..., MlBackend]]:
    """Starts a backend; all stop at the test's end."""
    with ExitStack() as stack:
        yield lambda **values: stack.enter_context(running(MlBackend(**values)))


@pytest.fixture
def load(three_labels: LabelSet) -> Iterator[Callable[..., LabelStudioModel]]:
    """Loads model "g-1" of a backend; all are closed at the test's end."""
    with ExitStack() as stack:

        def _load(
            backend: MlBackend, labels: LabelSet = three_labels, grid: Grid = GRID, **settings: Any
        ) -> LabelStudioModel:
            model = Quick(
                "g-1", ModelSettings(kind="label_studio", url=backend.url, **settings), labels, grid
            )
            stack.callback(model.close)
            return model

        yield _load


Start = Callable[..., MlBackend]
Load = Callable[..., LabelStudioModel]


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


class TestImagesWithoutAnswer:
    @pytest.mark.parametrize(
        ("second", "reason"),
        [
            (None, "came NoneType"),
            ({}, "came dict"),
            ({"result": None}, "came dict"),
            ({"result": [], "error": "out of memory"}, "out of memory"),
            ([], "came list"),
            ([{"result": []}, {"result": []}], "came list"),
            ({"result": [{"type": "cuboidlabels"}]}, "type 'cuboidlabels'"),
        ],
    )
    def test_a_failed_entry_is_no_answer_for_its_image_alone(
        self,
        start: Start,
        load: Load,
        frames: list[Frame],
        caplog: pytest.LogCaptureFixture,
        second: Any,
        reason: str,
    ) -> None:
        backend = start(change=lambda entries: [entries[0], second, entries[2]])
        maps = load(backend).predict(frames[:3])
        assert [m is None for m in maps] == [False, True, False]
        assert "has no answer for image s/1" in caplog.text
        assert reason in caplog.text

    def test_a_prediction_in_a_list_of_its_own_is_read(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        maps = load(start(change=lambda entries: [[e] for e in entries])).predict(frames)
        assert all(m is not None for m in maps)

    def test_an_image_for_which_the_backend_refuses_the_whole_request_is_found(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        def draw(rgb: RgbImage) -> list[Any]:
            if rgb.shape == frames[3].rgb.shape:
                raise ValueError("too small")
            return bitmasks(rgb)

        backend = start(draw=draw)
        maps = load(backend, batch_size=5).predict(frames)
        assert [m is None for m in maps] == [False, False, False, True, False]
        assert [len(request.body["tasks"]) for request in backend.predictions()] == [5, 1, 1, 1, 1, 1]

    def test_masks_for_a_turned_image_are_no_answer(
        self, start: Start, load: Load, frames: list[Frame], caplog: pytest.LogCaptureFixture
    ) -> None:
        backend = start(draw=lambda rgb: bitmasks(rgb.transpose(1, 0, 2)))
        assert load(backend).predict(frames[:1]) == [None]
        assert "turned by 90 degrees" in caplog.text

    def test_an_answer_for_an_image_that_was_never_fetched_is_none(
        self, start: Start, load: Load, frames: list[Frame], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Our own backend answers so for tasks that are not its own; read as a map it would be all background."""
        backend = start()
        backend._entry = lambda _task: {"result": []}  # type: ignore[method-assign, assignment]
        assert load(backend).predict(frames[:2]) == [None, None]
        assert "never fetched the image from http://127.0.0.1:" in caplog.text

    def test_a_backend_that_never_answers_is_given_up(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        model = load(start(change=lambda entries: [None] * len(entries)))
        with pytest.raises(
            ModelError, match=rf'model "g-1": .* no answer for {MOST_FAILURES} images in a row'
        ):
            model.predict(frames[:1] * MOST_FAILURES)
        assert model.predict(frames[:1] * 0) == []

    def test_failures_between_answers_are_not_added_up(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        model = load(start(change=lambda entries: [None, *entries[1:]]), batch_size=2)
        maps = model.predict(frames[:2] * MOST_FAILURES)
        assert [m is None for m in maps] == [True, False] * MOST_FAILURES


class TestFaults:
    def test_another_number_of_results_is_refused(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start(change=lambda entries: entries[:1])
        with pytest.raises(
            ModelError, match=r'model "g-1": .*3 tasks were sent, 1 results came.*batch_size: 1'
        ):
            load(backend).predict(frames[:3])

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    def test_a_backend_that_is_busy_is_asked_again(
        self, start: Start, load: Load, frames: list[Frame], status: int
    ) -> None:
        backend = start(faults=[Fault(status), Fault(status, headers={"Retry-After": "0"})])
        assert load(backend).predict(frames[:1])[0] is not None
        assert len(backend.predictions()) == 3

    def test_a_backend_that_stays_busy_is_given_up(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start(faults=[Fault(503, b"loading weights")] * 9)
        with pytest.raises(ModelError, match=r'model "g-1": .*/predict answered 503: loading weights'):
            load(backend).predict(frames[:1])
        assert len(backend.predictions()) == 4

    def test_a_slow_backend_is_not_asked_again(
        self, start: Start, three_labels: LabelSet, frames: list[Frame]
    ) -> None:
        class Impatient(Quick):
            timeout_s = 0.2

        backend = start(delay=Event())
        model = Impatient("g-1", ModelSettings(kind="label_studio", url=backend.url), three_labels, GRID)
        with pytest.raises(ModelError, match=r'model "g-1": .*did not answer within 0.2 s'):
            model.predict(frames[:1])
        model.close()
        assert len(backend.predictions()) == 1

    def test_an_answer_too_large_is_cut_off(self, start: Start) -> None:
        backend = start(faults=[Fault(200, b" " * 300_000)])
        client = MlBackendClient(backend.url, "<View/>", None, 5.0, 0.01, max_answer_bytes=100_000)
        with pytest.raises(ModelError, match=r"more than 100,000 bytes; lower batch_size"):
            client.predict([{"id": 1}])
        client.close()

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault(200, b"<html>"), "not JSON"),
            (Fault(200, b"[" * 100_000), "not JSON"),
            (Fault(200, b"[]"), 'with "results", a list'),
            (Fault(404, b"no such page"), "answered 404: no such page"),
            (
                Fault(302, headers={"Location": "https://elsewhere/predict"}),
                "sending us to https://elsewhere/predict",
            ),
        ],
    )
    def test_what_is_no_answer_is_named(
        self, start: Start, load: Load, frames: list[Frame], fault: Fault, reason: str
    ) -> None:
        with pytest.raises(ModelError, match=f'model "g-1": .*{reason}'):
            load(start(faults=[fault])).predict(frames[:1])

    def test_a_server_that_is_not_there_is_named(self, load: Load) -> None:
        with running(MlBackend()) as stopped:
            pass
        with pytest.raises(
            ModelError, match=rf'model "g-1": {stopped.url}/setup did not answer .*check that'
        ):
            load(stopped)

    @pytest.mark.parametrize(
        "url", ["ftp://host", "host:9090", "http://", "http://ann:pw-7@host", "http://host/?token=pw-7"]
    )
    def test_an_address_that_is_none_is_refused_and_not_repeated(self, load: Load, url: str) -> None:
        with pytest.raises(ModelError, match=r'model "g-1": url must be http://host:port') as caught:
            load(MlBackend(url=url))
        assert "pw-7" not in str(caught.value)

    def test_a_missing_or_broken_configuration_is_named(
        self, start: Start, load: Load, tmp_path: Path
    ) -> None:
        backend = start()
        with pytest.raises(ModelError, match=r"there is no .*gone\.xml; wanted a label configuration"):
            load(backend, config=tmp_path / "gone.xml")
        (tmp_path / "c.xml").write_text("<View>")
        with pytest.raises(ModelError, match=r'model "g-1": label configuration .*c\.xml: not XML'):
            load(backend, config=tmp_path / "c.xml")


class TestVersions:
    def settings(self, backend: MlBackend) -> ModelSettings:
        return ModelSettings(kind="label_studio", url=backend.url)

    def test_the_key_is_of_the_version_that_the_backend_tells(
        self, start: Start, load: Load, three_labels: LabelSet
    ) -> None:
        backend = start()
        key = load(backend).key
        assert stored_key("g-1", self.settings(backend), three_labels, GRID) == key
        backend.version = "v2"
        assert stored_key("g-1", self.settings(backend), three_labels, GRID) != key

    def test_a_version_that_only_health_tells_is_found(self, start: Start, load: Load) -> None:
        backend = start(has_setup=False)
        key = load(backend).key
        backend.version = "v2"
        assert load(backend).key != key

    def test_the_key_changes_with_the_configuration_file(
        self, start: Start, three_labels: LabelSet, tmp_path: Path
    ) -> None:
        config = tmp_path / "config.xml"
        config.write_text(bitmask_config(three_labels.names).xml)
        settings = ModelSettings(kind="label_studio", url=start().url, config=config)
        before = stored_key("g-1", settings, three_labels, GRID)
        config.write_text(config.read_text().replace('name="mask"', 'name="other"'))
        assert stored_key("g-1", settings, three_labels, GRID) != before

    def test_without_any_version_the_address_stands_for_it(self, start: Start, load: Load) -> None:
        backend = start(version=None)
        assert load(backend).key == load(backend).key
        assert load(backend).key != load(start(version=None)).key

    def test_a_new_version_during_a_scan_is_refused(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start()
        model = load(backend)
        model.predict(frames[:1])
        backend.version = "v2"
        with pytest.raises(
            ModelError, match=r'model "g-1": .*was version v1 .*is v2 now.*start the scan again'
        ):
            model.predict(frames[:1])

    def test_predictions_of_two_versions_are_refused(
        self, start: Start, load: Load, frames: list[Frame]
    ) -> None:
        backend = start(answering="a")
        model = load(backend)
        model.predict(frames[:1])
        backend.answering = "b"
        with pytest.raises(ModelError, match=r'model "g-1": .*answered as version a and now as b'):
            model.predict(frames[:1])


class TestCredentials:
    USER, PASSWORD = "ann", "pw-7f3"
    BASIC = "Basic YW5uOnB3LTdmMw=="

    def test_they_are_sent_and_are_in_no_message(
        self,
        start: Start,
        load: Load,
        frames: list[Frame],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("MAD_MODEL_G_1_USER", self.USER)
        monkeypatch.setenv("MAD_MODEL_G_1_PASSWORD", self.PASSWORD)
        caplog.set_level(logging.DEBUG)
        backend = start(authorization=self.BASIC)
        model = load(backend)
        assert model.predict(frames[:1])[0] is not None
        echo = f"you are {self.USER} with {self.PASSWORD}, {self.BASIC}"
        backend.faults = [Fault(503, echo.encode()), Fault(404, echo.encode())]
        with pytest.raises(ModelError, match=r"you are \*\*\* with \*\*\*") as caught:
            model.predict(frames[:1])
        backend.change = lambda entries: [{"error": echo}] * len(entries)
        assert model.predict(frames[:1]) == [None]
        seen = f"{caught.value}{caught.value.__cause__}{vars(model)}{caplog.text}"
        assert self.PASSWORD not in seen
        assert self.BASIC.split()[1] not in seen

    def test_without_them_the_error_names_the_variables(self, start: Start, load: Load) -> None:
        with pytest.raises(ModelError, match=r'model "g-1": .*answered 401: .*MAD_MODEL_<NAME>_USER'):
            load(start(authorization=self.BASIC))

    def test_one_without_the_other_is_refused(self) -> None:
        assert credentials("g", {}) is None
        assert credentials("a.b", {"MAD_MODEL_A_B_USER": "u", "MAD_MODEL_A_B_PASSWORD": ""}) == ("u", "")
        with pytest.raises(ModelError, match="set both MAD_MODEL_G_USER and MAD_MODEL_G_PASSWORD"):
            credentials("g", {"MAD_MODEL_G_USER": "u"})


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    in_a_minute = datetime.now(UTC) + timedelta(seconds=60)
    assert _seconds("7") == 7.0
    assert _seconds(format_datetime(in_a_minute, usegmt=True)) == pytest.approx(60, abs=2)
    assert _seconds("soon") is None
    assert _seconds(None) is None


def test_the_frame_server_offers_pictures_until_the_block_ends() -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    server = FrameServer()
    with server.offering([rgb, rgb]) as (one, two):
        assert one.address != two.address
        assert fetched(one.address) == one.png
        assert (one.was_fetched, two.was_fetched) == (True, False)
        with pytest.raises(HTTPError, match="404"):
            fetched(server.origin + "/")
    server.close()
    server.close()
