"""Webhooks of a real Label Studio to a running `mad serve`."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydantic import SecretStr

from mad_backend.errors import LabelStudioError
from mad_backend.label_studio.label_config import rating_config
from mad_backend.label_studio.webhook import SECRET_HEADER
from mad_backend.store.store import Store
from sync.client import LabelStudioClient, Project
from sync.ml_backends import ensure_backend, served_at
from sync.webhooks import ACTIONS, create_webhook, ensure_webhook, webhook_address, webhooks
from tests.conftest import RunningLabelStudio
from tests.sync.clinic import SECRET, clinic, serving

RESULT = [{"from_name": "quality", "to_name": "overlay", "type": "choices", "value": {"choices": ["4"]}}]


@pytest.fixture
def project(label_studio: RunningLabelStudio) -> Iterator[Project]:
    made = label_studio.admin.create_project(title="webhooks", label_config=rating_config())
    data = {"image": "/x", "overlay": "/y", "legend": "", "item": "i"}
    label_studio.admin.import_tasks(made.project_id, [{"data": data}])
    yield made
    label_studio.admin.delete_project(made.project_id)


def arrives(store: Store, limit_s: float = 5.0) -> bool:
    end = time.monotonic() + limit_s
    while not store.remote.take_pull_wish():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_ratings_their_changes_and_deletions_hasten_the_next_pull(
    label_studio: RunningLabelStudio, store: Store, project: Project, tmp_path: Path
) -> None:
    rater = label_studio.raters[0]
    (task,) = label_studio.admin.tasks(project.project_id)
    there = clinic(tmp_path, store, label_studio.server.url, label_studio.server.token)
    with serving(there) as url:
        address = webhook_address(url)
        ensure_webhook(label_studio.admin, project.project_id, address, SecretStr(SECRET))
        assert not store.remote.take_pull_wish()
        annotation = rater.create_annotation(task.task_id, RESULT)
        assert arrives(store)
        rater.update_annotation(annotation.annotation_id, RESULT)
        assert arrives(store)
        rater.delete_annotation(annotation.annotation_id)
        assert arrives(store)
        refused = requests.post(address, json={}, headers={SECRET_HEADER: "wrong"}, timeout=10)
        assert refused.status_code == 403
        ensure_webhook(label_studio.admin, project.project_id, address, SecretStr("wrong"))
        rater.create_annotation(task.task_id, RESULT)
        assert not arrives(store, 0.5)


def test_our_webhook_is_never_doubled_and_is_put_right(
    label_studio: RunningLabelStudio, project: Project
) -> None:
    admin, number = label_studio.admin, project.project_id
    theirs = admin.send(
        "POST",
        "/api/webhooks/",
        "making somebody else's webhook",
        {"project": number, "url": "http://127.0.0.1:9/theirs", "send_for_all_actions": True},
    )
    first = ensure_webhook(admin, number, "http://127.0.0.1:9/webhook", None)
    assert first is not None
    before = webhooks(admin, number)
    assert ensure_webhook(admin, number, "http://127.0.0.1:9/webhook", None) == first
    assert webhooks(admin, number) == before
    assert ensure_webhook(admin, number, "http://127.0.0.1:10/webhook", SecretStr(SECRET)) == first
    # What a person's PATCH without actions does, and a twin of two pushes at the same moment.
    admin.send("PATCH", f"/api/webhooks/{first}/", "harming it", {"is_active": False, "send_payload": True})
    create_webhook(admin, number, "http://127.0.0.1:10/webhook", SecretStr(SECRET))
    assert ensure_webhook(admin, number, "http://127.0.0.1:10/webhook", SecretStr(SECRET)) == first
    other, ours = webhooks(admin, number)
    assert other["id"] == theirs["id"]
    assert other["url"] == "http://127.0.0.1:9/theirs"
    assert sorted(ours.pop("actions")) == sorted(ACTIONS)
    kept = {k: ours[k] for k in ("url", "headers", "is_active", "send_payload", "send_for_all_actions")}
    assert kept == {
        "url": "http://127.0.0.1:10/webhook",
        "headers": {SECRET_HEADER: SECRET},
        "is_active": True,
        "send_payload": False,
        "send_for_all_actions": False,
    }


def test_the_webhook_of_a_connected_ml_backend_is_given_our_secret(
    label_studio: RunningLabelStudio, store: Store, project: Project, tmp_path: Path
) -> None:
    admin, number = label_studio.admin, project.project_id
    there = clinic(tmp_path, store, label_studio.server.url, label_studio.server.token)
    with serving(there) as url:
        ensure_backend(admin, number, served_at(there.settings, there.secrets, url))
        (made,) = webhooks(admin, number)
        assert ensure_webhook(admin, number, webhook_address(url), SecretStr(SECRET)) == made["id"]
        (now,) = webhooks(admin, number)
    assert now["headers"] == {SECRET_HEADER: SECRET}


def test_what_label_studio_refuses_is_a_warning_and_a_wrong_token_an_error(
    label_studio: RunningLabelStudio, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    assert ensure_webhook(label_studio.admin, project.project_id, "http://mad:9090/webhook", None) is None
    assert "Enter a valid URL" in caplog.text
    assert "at the next tick only" in caplog.text
    assert ensure_webhook(label_studio.admin, 10**6, "http://127.0.0.1:9/webhook", None) is None
    stranger = LabelStudioClient(label_studio.server.url, "0" * 40)
    with pytest.raises(LabelStudioError, match="token is wrong"):
        ensure_webhook(stranger, project.project_id, "http://127.0.0.1:9/webhook", None)
