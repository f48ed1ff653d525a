"""Whatever is wrong is said in one clear sentence before a round is made."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mad_backend.core.rounds import RoundState
from mad_backend.errors import LabelStudioError, MadError, ModelError, PoolError, SettingsError, StoreError
from sync.client import LabelStudioClient
from tests.conftest import RunningLabelStudio
from tests.training.conftest import CONFIGS, MakeProject, settings_of
from training.project import Project
from training.start import check_people, start_round

NAMES = ("house", "tree", "car", "person", "boat", "animal", "balloon")


def refused(project: Project, kind: type[MadError], client: LabelStudioClient | None = None) -> str:
    """The message of the refusal; no round, no version and no prediction came of it."""
    with pytest.raises(kind) as caught:
        start_round(project, client)
    assert project.store.rounds.all() == []
    assert project.store.versions.all() == []
    assert not (project.settings.workspace / "predictions").exists()
    return str(caught.value)


def source(name: str, folder: Path, masks: Path | None = None) -> list[dict[str, str]]:
    return [{"name": name, "images": str(folder), **({"masks": str(masks)} if masks else {})}]


def models_with(scenes: Path, **changes: Any) -> dict[str, Any]:
    models: dict[str, Any] = settings_of(scenes, scenes)["models"]
    return {**models, **changes}


def test_a_good_project_starts_its_first_round(make_project: MakeProject) -> None:
    project = make_project()
    found = start_round(project, None)
    assert (found.number, found.state, found.seed) == (1, RoundState.CREATED, 3001)
    promoted = project.store.versions.promoted()
    assert promoted
    assert promoted.version == "scenes@0"


def test_a_missing_pool_folder_is_named(make_project: MakeProject, tmp_path: Path) -> None:
    project = make_project(pool=source("pool", tmp_path / "nowhere"))
    assert refused(project, PoolError) == (
        f'source "pool": there is no folder {tmp_path}/nowhere; check images in the settings'
    )


def test_an_empty_pool_is_named(make_project: MakeProject, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no image in" in refused(make_project(pool=source("pool", tmp_path / "empty")), PoolError)


def test_original_images_without_masks_are_named(make_project: MakeProject, scenes: Path) -> None:
    project = make_project(s0=source("s0", scenes / "s0" / "images"))
    assert 'source "s0" needs masks' in refused(project, PoolError)


def test_missing_label_maps_are_counted_and_one_is_named(make_project: MakeProject, scenes: Path) -> None:
    project = make_project(s0=source("s0", scenes / "s0" / "images", scenes / "t0" / "masks"))
    message = refused(project, PoolError)
    assert "20 of 20 label maps are missing" in message
    assert "s0_00000.png" in message


def test_a_test_image_in_the_pool_is_refused(make_project: MakeProject, scenes: Path) -> None:
    masks = scenes / "t0" / "masks"
    project = make_project(pool=source("t0", scenes / "t0" / "images", masks))
    assert refused(project, PoolError) == (
        '"t0/t0_00000" is in the pool and in t0; the pool must not hold test images'
    )


def test_a_class_that_no_model_knows_is_named(
    make_project: MakeProject, scenes: Path, tmp_path: Path
) -> None:
    text = (CONFIGS / "label_sets" / "scenes.yaml").read_text()
    more = tmp_path / "more.yaml"
    more.write_text(text + '  - {name: kite, color: "#123456"}\n')
    own = ["background", *NAMES]
    models = models_with(scenes)
    models = {
        "name": "scenes",
        "target": {**models["target"], "own_classes": own},
        "competing": {n: {**m, "own_classes": own} for n, m in models["competing"].items()},
    }
    message = refused(make_project(label_set=str(more), models=models), ModelError)
    assert message.startswith('no model knows class kite of label set "scenes"')


def test_a_missing_checkpoint_is_named(make_project: MakeProject, scenes: Path, tmp_path: Path) -> None:
    target = {**models_with(scenes)["target"], "path": str(tmp_path / "none.safetensors")}
    message = refused(make_project(models=models_with(scenes, target=target)), ModelError)
    assert f"there is no {tmp_path}/none.safetensors" in message


def test_a_target_that_cannot_be_trained_is_refused(make_project: MakeProject, scenes: Path) -> None:
    target = {"kind": "folder", "path": str(scenes / "models" / "shifted")}
    message = refused(make_project(models=models_with(scenes, target=target)), ModelError)
    assert message == (
        'the target is of kind "folder"; only hf, mmseg, smp, torchvision, or a network of your own as '
        '"package.module:Class", can be fine-tuned'
    )


def test_a_window_of_an_unknown_class_is_refused(make_project: MakeProject) -> None:
    message = refused(make_project(selection={"windows": {"hose": [0.1, 0.2]}}), MadError)
    assert "hose" in message


def test_a_server_that_is_down_is_named(make_project: MakeProject) -> None:
    client = LabelStudioClient("http://127.0.0.1:1", "token", backoff_s=0.01)
    message = refused(make_project(), LabelStudioError, client)
    assert "http://127.0.0.1:1" in message


def test_a_wrong_token_is_refused_and_not_shown(
    make_project: MakeProject, label_studio: RunningLabelStudio
) -> None:
    client = LabelStudioClient(label_studio.server.url, "0123456789abcdef" * 2, backoff_s=0.01)
    message = refused(make_project(), LabelStudioError, client)
    assert "token" in message
    assert "0123456789abcdef" not in message


def test_only_one_round_at_a_time(make_project: MakeProject) -> None:
    project = make_project()
    start_round(project, None)
    with pytest.raises(StoreError) as caught:
        start_round(project, None)
    assert str(caught.value) == "round 1 is created; finish it first, or end it with `mad cancel 1`"
    assert len(project.store.rounds.all()) == 1


def test_a_pool_at_label_studio_is_fetched_before_the_round_starts(
    make_project: MakeProject, scenes: Path, label_studio: RunningLabelStudio
) -> None:
    client = label_studio.admin
    theirs = client.create_project(title="theirs", label_config='<View><Image name="i" value="$i"/></View>')
    photos = sorted((scenes / "pool" / "images").iterdir())[:2]
    client.upload(theirs.project_id, {photo.name: photo.read_bytes() for photo in photos})
    client.import_tasks(
        theirs.project_id, [{"data": {"i": at}} for at in client.uploads(theirs.project_id).values()]
    )
    project = make_project(pool=[{"name": "theirs", "label_studio": {"project": theirs.project_id}}])
    assert "was not fetched yet" in refused(project, PoolError)
    start_round(project, client)
    assert [project.reader.size(image) for image in project.pool.values()] == [(192, 256)] * 2
    client.delete_project(theirs.project_id)


@pytest.fixture
def lonely() -> Iterator[LabelStudioClient]:
    """A server with one user, as far as it is asked here."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps([{"id": 1, "email": "ann@example.com"}]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield LabelStudioClient(f"http://127.0.0.1:{server.server_address[1]}", "token", backoff_s=0.01)
        server.shutdown()
        thread.join()


def test_a_cross_check_by_one_person_alone_is_refused(
    make_project: MakeProject, lonely: LabelStudioClient
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_people(make_project(), lonely)
    assert str(caught.value) == (
        f"check.enabled wants two people or more, since nobody checks a label map of their own; {lonely.url} has "
        "ann@example.com: invite somebody there, or set check.enabled: false"
    )
    check_people(make_project("alone", check={"enabled": False}), lonely)
