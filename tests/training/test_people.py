"""A whole round at a real Label Studio with every setting of the work with people that is not the default."""

from pathlib import Path

import numpy as np
import pytest
import requests

from mad_backend.core.records import ProjectRole
from mad_backend.core.rounds import RoundState
from mad_backend.label_studio.webhook import SECRET_HEADER
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.pictures import PictureFolder
from sync.webhooks import webhook_address, webhooks
from tests.conftest import RunningLabelStudio
from tests.training.conftest import MakeProject
from training.oracles import SimulatedCrowd
from training.people import LabelStudioPeople
from training.rounds import RoundRunner
from training.start import start_round
from training.steps import load_item

PUBLIC_URL = "http://127.0.0.1:9/mad"
"""Nobody listens there: this test looks at what tasks and webhooks say, others at what is served."""


def test_a_blind_round_with_served_pictures_the_best_models_maps_and_webhooks(
    make_project: MakeProject, label_studio: RunningLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_missing_operators()
    people = list(label_studio.emails[:3])
    monkeypatch.setenv("MAD_WEBHOOK_SECRET", "a-secret-of-webhooks")
    monkeypatch.setenv("MAD_RATER_TOKENS", f'{{"{people[0]}": "{label_studio.tokens[0]}"}}')
    project = make_project(
        selection={"n3": 1},
        rating={"n4": 3, "blind": True, "people": people},
        test_set={"size": 2},
        segmentation={"start_from": "best", "further": True},
        label_studio={"url": label_studio.server.url, "media": "serve"},
        serve={"public_url": PUBLIC_URL},
    )
    runner = RoundRunner(project, LabelStudioPeople(project, label_studio.admin), isolate=False)
    crowd = SimulatedCrowd(project, dict(zip(people, label_studio.raters[:3], strict=True)))
    start_round(project, label_studio.admin)
    runner.tick()
    store = project.store
    assert store.rounds.get(1).state is RoundState.RATING, store.rounds.get(1).error
    rating = store.remote.projects(1, ProjectRole.RATING)
    assert [p.seat for p in rating] == sorted(people)
    for one in rating:
        (hook,) = webhooks(label_studio.admin, one.project_id)
        assert hook["url"] == webhook_address(PUBLIC_URL)
        assert hook["headers"] == {SECRET_HEADER: "a-secret-of-webhooks"}
    own_keys = label_studio.raters[0].get("/api/current-user/hotkeys/", "reading the keys")
    assert own_keys["custom_hotkeys"]["annotation:annotation:submit"]["key"] == "enter"

    task_id = next(iter(store.remote.tasks(1, ProjectRole.RATING, people[0]).values()))
    shown = task(label_studio, task_id)["data"]
    for field in ("image", "overlay"):
        name, _, signature = shown[field].removeprefix(f"{PUBLIC_URL}/pictures/").partition("?s=")
        file = PictureFolder(project.settings.pictures, store.remote.sign).find(name, signature)
        assert file is not None
        assert file.read_bytes()[:3] == b"\xff\xd8\xff"

    key = project.target_key(project.target_of(store.rounds.get(1)))
    with project.predictions.open(key) as pack:
        asked = crowd.work(1, ProjectRole.RATING, lambda i: load_item(project, pack, i)[1], lambda: False)
    assert asked == 3 * len(store.choices.selection(1))
    assert runner.tick()
    assert store.rounds.get(1).state is RoundState.LABELLING, store.rounds.get(1).error
    assert {r.rater for r in store.remote.ratings(1)} == set(people)
    drawn = store.remote.project(1, ProjectRole.SEGMENTATION)
    assert drawn is not None
    there = label_studio.admin.project(drawn.project_id)
    assert there is not None
    assert there.model_version == "start"
    versions = {
        p["model_version"]
        for p in task(label_studio, first(store.remote.tasks(1, drawn.role)))["predictions"]
    }
    assert versions == {"start", "shifted", "confused", "scenes@0"}
    assert list(Path(project.settings.workspace / "evaluations").glob("start-*.json"))

    assert crowd.work(1, ProjectRole.SEGMENTATION, lambda _: np.zeros((1, 1), np.uint8), lambda: False) >= 5
    assert runner.tick()
    assert store.rounds.get(1).state is RoundState.CHECKING, store.rounds.get(1).error
    assert crowd.work(1, ProjectRole.CHECK, lambda _: np.zeros((1, 1), np.uint8), lambda: False) >= 5
    assert runner.tick()
    assert store.rounds.get(1).state is RoundState.FINISHED, store.rounds.get(1).error


def first(tasks: dict[str, int]) -> int:
    return min(tasks.values())


def task(running: RunningLabelStudio, task_id: int) -> dict[str, dict[str, str]]:
    headers = {"Authorization": f"Token {running.server.token}"}
    return requests.get(f"{running.server.url}/api/tasks/{task_id}/", headers=headers, timeout=30).json()
