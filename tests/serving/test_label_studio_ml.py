"""The target model inside `label-studio-ml`: its contract where version 2 is there, else a clear word about it."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from mad_backend.errors import MissingRuntimeError
from mad_backend.serving.label_studio_ml_model import target_model
from mad_backend.serving.target_service import PredictRequest, TargetService
from tests.served_world import CONFIG, NOW

# The package's own, of pydantic's older ways.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PROJECT = "19.1795333750"


@pytest.fixture
def config(world: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The world's settings as a file, which MAD_CONFIG names."""
    path: Path = world.root / "mad.yaml"
    path.write_text(json.dumps(world.settings.model_dump(mode="json", exclude_defaults=True)))
    monkeypatch.setenv("MAD_CONFIG", str(path))
    return path


@pytest.fixture
def client(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """The package's own web application with our model."""
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))  # where it keeps a database of its own, from its import on
    try:
        model = target_model()
    except MissingRuntimeError as error:
        pytest.skip(f"needs label_studio_ml 2 or newer: {error}")
    app = importlib.import_module("label_studio_ml.api").init_app(model)
    with app.test_client() as opened:
        yield opened
    model.opened.close()


def setup(client: FlaskClient) -> str:
    body = {
        "project": PROJECT,
        "schema": CONFIG,
        "hostname": "http://localhost:8080",
        "access_token": "0" * 40,
        "extra_params": None,
    }
    answer = client.post("/setup", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json["model_version"])


def predict(client: FlaskClient, tasks: list[Any], label_config: str = CONFIG) -> list[Any]:
    params = {"login": None, "password": None, "context": None}
    body = {"tasks": tasks, "project": PROJECT, "label_config": label_config, "params": params}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json["results"])


def test_predictions_are_those_of_our_own_routes_and_versions_agree(
    client: FlaskClient, world: Any, service: TargetService
) -> None:
    tasks = [world.task(f"pool/{n}", task_id=n) for n in (3, 0)] + [{"id": 7, "data": {}}]
    ours = service.predict(PredictRequest(tasks, CONFIG))
    found = predict(client, tasks)
    assert setup(client) == "scenes@0"
    assert [f["model_version"] for f in found] == ["scenes@0"] * 3
    assert [len(f["result"]) for f in found] == [1, 1, 0]
    stripped = [[{k: v for k, v in r.items() if k != "id"} for r in a.regions] for a in ours]
    assert [[{k: v for k, v in r.items() if k != "id"} for r in f["result"]] for f in found] == stripped
    assert predict(client, []) == []


def test_a_promotion_is_named_and_served_by_the_next_request(client: FlaskClient, world: Any) -> None:
    assert setup(client) == "scenes@0"
    world.store.versions.promote("scenes@1", NOW, "better")
    (found,) = predict(client, [world.task("pool/0")])
    assert found["model_version"] == setup(client) == "scenes@1"


def test_an_answer_at_label_studio_hastens_the_pull_and_trains_nothing(
    client: FlaskClient, world: Any
) -> None:
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 19, "label_config": CONFIG}, "annotation": {}}
    assert not world.store.remote.take_pull_wish()
    answer = client.post("/webhook", json=body)
    assert (answer.status_code, answer.json["result"]) == (201, {"status": "ok"})
    assert world.store.remote.take_pull_wish()


def test_a_configuration_we_cannot_answer_costs_no_other_project_its_answer(
    client: FlaskClient, world: Any
) -> None:
    choices = '<View><Image name="i" value="$image"/><Choices name="c" toName="i"><Choice value="a"/></Choices></View>'
    (empty,) = predict(client, [world.task("pool/0")], choices)
    (found,) = predict(client, [world.task("pool/0")])
    assert (empty["result"], len(found["result"])) == ([], 1)


def test_without_the_package_the_message_says_where_it_is(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "label_studio_ml", None)
    with pytest.raises(
        MissingRuntimeError, match=r"not installed; pip install git\+https://github.com/HumanS"
    ):
        target_model()


def test_the_package_on_pypi_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "old" / "label_studio_ml"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.0.9"\n')
    monkeypatch.delitem(sys.modules, "label_studio_ml", raising=False)
    monkeypatch.syspath_prepend(str(package.parent))
    with pytest.raises(MissingRuntimeError, match=r"2 or newer, got 1\.0\.9"):
        target_model()
    monkeypatch.delitem(sys.modules, "label_studio_ml")
