"""`mad doctor` and webhooks against a real server that was started with the wrong environment."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from mad_backend.label_studio.label_config import rating_config
from mad_backend.store.store import Store
from sync.connection import connect
from sync.embedded import EmbeddedLabelStudio
from sync.webhooks import ensure_webhook
from tests.conftest import EXECUTABLE, RunningLabelStudio, copy_database
from tests.sync.clinic import Clinic, clinic, serving
from tests.sync.picture_hosts import buckets

WRONG = {
    "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "true",
    "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "true",
    "LABEL_STUDIO_DATA_UPLOAD_MAX_NUMBER_FILES": "50",
    "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "false",
}


@pytest.fixture(scope="module")
def wary(
    label_studio: RunningLabelStudio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedLabelStudio]:
    """A second Label Studio with the first one's users, blocks and limits on, local files off."""
    first, root = label_studio.server.log_path.parent, tmp_path_factory.mktemp("wary")
    copy_database(first, root)
    (root / "files").mkdir()
    environment = {**WRONG, "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(root / "files")}
    with EmbeddedLabelStudio(root, EXECUTABLE, environment=environment) as server:
        yield server


@pytest.fixture
def there(tmp_path: Path, store: Store, wary: EmbeddedLabelStudio) -> Clinic:
    return clinic(tmp_path, store, wary.url, wary.token)


def test_each_address_block_names_its_own_variable(there: Clinic) -> None:
    with serving(there) as url:
        found = there.with_settings(serve={"public_url": url}).ask("webhook address", "ML backend")
    assert "ML backends" in found["ML backend"][0].told
    assert found["ML backend"][0].cure == "start Label Studio with LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false"
    assert (
        found["webhook address"][0].cure
        == "start Label Studio with LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false"
    )


def test_a_limit_of_files_names_its_variable(there: Clinic) -> None:
    assert "LABEL_STUDIO_DATA_UPLOAD_MAX_NUMBER_FILES=100" in there.wrong("upload limits").cure


def test_local_files_that_are_off_name_their_variables(there: Clinic, wary: EmbeddedLabelStudio) -> None:
    root = wary.log_path.parent / "files"
    found = there.with_settings(label_studio={"media": "local-files", "local_files": {"root": root}}).wrong(
        "pictures"
    )
    assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true" in found.told + found.cure


def test_a_private_bucket_names_the_variable(there: Clinic) -> None:
    with buckets() as store:
        cloud = {"prefix": "s3://pictures/mad", "endpoint_url": store.url}
        found = there.with_settings(label_studio={"media": "cloud", "cloud": cloud}).wrong("pictures")
    assert "LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false" in found.told + found.cure


def test_legacy_tokens_that_are_switched_off_are_told_from_wrong_ones(
    there: Clinic, wary: EmbeddedLabelStudio
) -> None:
    admin = wary.client()
    personal = admin.send("POST", "/api/token/", "making a token")["token"]
    off = {"legacy_api_tokens_enabled": False, "api_tokens_enabled": True}
    admin.send("POST", "/api/jwt/settings", "switching legacy tokens off", off)
    modern = there.with_secrets(label_studio_token=SecretStr(personal))
    try:
        found = there.wrong("token")
        assert "switched off" in found.told
        assert "Legacy Tokens" in found.cure
        modern.fine("token")
    finally:
        on = {**off, "legacy_api_tokens_enabled": True}
        client = connect(modern.settings, modern.secrets)
        client.send("POST", "/api/jwt/settings", "switching legacy tokens on", on)


def test_a_refused_webhook_is_a_warning_with_the_cure(
    wary: EmbeddedLabelStudio, caplog: pytest.LogCaptureFixture
) -> None:
    client = wary.client()
    project = client.create_project(title="refused webhook", label_config=rating_config())
    with caplog.at_level(logging.WARNING):
        secret = SecretStr("hush hush")
        assert ensure_webhook(client, project.project_id, "http://127.0.0.1:9/webhook", secret) is None
    assert "LABEL_STUDIO_SSRF_PROTECTION_ENABLED=false" in caplog.text
    assert "hush hush" not in caplog.text
    client.delete_project(project.project_id)
