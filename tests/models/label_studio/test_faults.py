"""ML backends of other parties that fail: images without an answer, and every kind of wrong one."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from mad_backend.core.labels import LabelSet, RgbImage
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.label_studio_client import MlBackendClient, _seconds
from mad_backend.models.label_studio_model import MOST_FAILURES
from mad_backend.settings import ModelSettings
from tests.models.label_studio.conftest import GRID, Load, Quick, Start
from tests.models.ml_backend import Fault, MlBackend, bitmasks, running


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


def test_retry_after_is_read_as_seconds_and_as_a_date() -> None:
    in_a_minute = datetime.now(UTC) + timedelta(seconds=60)
    assert _seconds("7") == 7.0
    assert _seconds(format_datetime(in_a_minute, usegmt=True)) == pytest.approx(60, abs=2)
    assert _seconds("soon") is None
    assert _seconds(None) is None
