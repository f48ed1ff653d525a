"""ML backends of other parties: which version answered, who may ask, and where they fetch pictures."""

import logging
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest

from mad_backend.core.labels import LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.label_studio.backend_config import bitmask_config
from mad_backend.models.frame_server import FrameServer
from mad_backend.models.label_studio_client import credentials
from mad_backend.models.registry import stored_key
from mad_backend.settings import ModelSettings
from tests.models.label_studio.conftest import GRID, Load, Start
from tests.models.ml_backend import Fault, MlBackend, fetched


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
