"""Storage records of a real Label Studio, and its buckets on a real S3 server."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response, jsonify, request

from mad_backend.errors import LabelStudioError, PoolError, SettingsError
from mad_backend.settings import CloudSettings
from sync.client import LabelStudioClient
from sync.hosts import Bucket, OwnAddresses, StoredPictures
from sync.pictures import PictureHost, UploadedPictures
from sync.storages import Storage, cloud_storage, ensure_storage
from tests.conftest import RunningLabelStudio
from tests.sync.picture_hosts import Buckets, buckets, pictures, running

CONFIG = '<View><Image name="image" value="$image"/></View>'
LIMIT = 10**6


@pytest.fixture
def project(label_studio: RunningLabelStudio) -> int:
    return label_studio.admin.create_project(title="Pictures", label_config=CONFIG).project_id


@pytest.fixture
def s3() -> Iterator[Buckets]:
    with buckets() as found:
        yield found


def records(client: LabelStudioClient, kind: str, project_id: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/api/storages/{kind}/", "looking", {"project": project_id})
    return found


def seen_by(client: LabelStudioClient, project_id: int, address: str) -> str:
    """What the server tells a browser to ask for, of a new task that shows `address`."""
    client.import_tasks(project_id, [{"data": {"image": address, "item": "x"}}])
    task = client.tasks(project_id)[-1]
    return str(client.get(f"/api/tasks/{task.task_id}/", "looking")["data"]["image"])


def test_pictures_of_a_bucket_are_given_by_the_server_or_by_the_bucket(
    label_studio: RunningLabelStudio, s3: Buckets, project: int
) -> None:
    files = pictures(2)
    name = next(iter(files))
    cloud = CloudSettings(prefix="s3://pictures/deep/mad/", endpoint_url=s3.url, region="us-east-1")
    host = StoredPictures(label_studio.admin, Bucket(cloud, os.environ))
    there = host.place(project, files)
    assert host.place(project, files) == there == {n: f"s3://pictures/deep/mad/{n}" for n in files}
    assert s3.keys() == [f"deep/mad/{n}" for n in sorted(files)]
    assert s3.client.head_object(Bucket="pictures", Key=f"deep/mad/{name}")["ContentType"] == "image/jpeg"
    address = seen_by(label_studio.admin, project, there[name])
    assert address.startswith("/tasks/")
    headers = {"Authorization": f"Token {label_studio.tokens[0]}"}
    proxied = requests.get(
        label_studio.server.url + address, headers=headers, timeout=30, allow_redirects=False
    )
    assert (proxied.status_code, proxied.content) == (200, files[name])

    presigned = cloud.model_copy(update={"presign": True})
    host = StoredPictures(label_studio.admin, Bucket(presigned, os.environ))
    assert host.place(project, files) == there
    sent_on = requests.get(
        label_studio.server.url + address, headers=headers, timeout=30, allow_redirects=False
    )
    assert sent_on.status_code == 303
    assert sent_on.headers["Location"].startswith(f"{s3.url}/pictures/deep/mad/{name}?")
    assert requests.get(sent_on.headers["Location"], timeout=30).content == files[name]

    (record,) = records(label_studio.admin, "s3", project)
    assert (record["bucket"], record["prefix"], record["presign"]) == ("pictures", "deep/mad", True)
    assert "HUSH" not in str(record)
    with pytest.raises(LabelStudioError, match="not synchronizable"):
        label_studio.admin.send("POST", f"/api/storages/s3/{record['id']}/sync", "syncing")


def test_a_bucket_that_is_not_there_is_told_before_any_task_is_sent(
    label_studio: RunningLabelStudio, s3: Buckets, project: int
) -> None:
    gone = Bucket(CloudSettings(prefix="s3://gone/mad", endpoint_url=s3.url), os.environ)
    with pytest.raises(
        PoolError, match=r"s3://gone/mad cannot be written to: .*; credentials come from: AWS_ACCESS"
    ):
        StoredPictures(label_studio.admin, gone).place(project, pictures(1))
    # Of a store that only Label Studio cannot reach, its record tells.
    host = OwnAddresses(
        label_studio.admin,
        UploadedPictures(label_studio.admin),
        CloudSettings(prefix="s3://any", endpoint_url=s3.url),
        os.environ,
    )
    host.own_address("s3://gone/a.jpg")
    with pytest.raises(
        LabelStudioError, match=rf"storage record for gone: .*must reach the store at {s3.url}"
    ) as told:
        host.place(project, {})
    assert "HUSH" not in str(told.value)
    assert records(label_studio.admin, "s3", project) == []


def test_photos_as_they_are_in_a_bucket_are_given_by_the_server(
    label_studio: RunningLabelStudio, s3: Buckets, project: int
) -> None:
    s3.client.put_object(Bucket="pictures", Key="in here/ä.jpg", Body=b"a photo", ContentType="image/jpeg")
    cloud = CloudSettings(prefix="s3://any", endpoint_url=s3.url)
    host: PictureHost = OwnAddresses(
        label_studio.admin, UploadedPictures(label_studio.admin), cloud, os.environ
    )
    address = host.own_address("s3://pictures/in here/ä.jpg")
    assert address is not None
    overlay = pictures(1)
    for _ in range(2):
        there = host.place(project, overlay)
    assert list(there) == list(overlay)
    assert label_studio.raters[0].download(seen_by(label_studio.admin, project, address), LIMIT) == b"a photo"
    (record,) = records(label_studio.admin, "s3", project)
    assert (record["bucket"], record["prefix"] or "") == ("pictures", "")


@dataclass(frozen=True)
class Recorder:
    """A server that takes storage records as Label Studio's API describes them, and keeps what it was sent."""

    client: LabelStudioClient
    sent: list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def recorder() -> Iterator[Callable[[int], Recorder]]:
    """Gives a recorder that answers records with a status; a stand-in, since GCS and Azure are not to be had here."""
    app = Flask(__name__, static_folder=None)
    sent: list[tuple[str, str, dict[str, Any]]] = []
    status = [201]

    @app.get("/api/storages/<kind>/")
    def listed(kind: str) -> Response:
        return jsonify([])

    @app.post("/api/storages/<kind>/")
    def made(kind: str) -> tuple[Response, int]:
        sent.append((request.method, kind, request.get_json()))
        return jsonify(id=1, detail=f"no such keys: {request.get_json()}"), status[0]

    with running(app) as url:

        def answering(wanted: int) -> Recorder:
            status[0] = wanted
            return Recorder(LabelStudioClient(url, "0" * 40), sent)

        yield answering


def test_records_of_google_and_azure_are_as_the_api_describes_them(
    recorder: Callable[[int], Recorder], tmp_path: Path
) -> None:
    there = recorder(201)
    (tmp_path / "key.json").write_text('{"type": "service_account"}')
    google = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    ensure_storage(there.client, 7, cloud_storage("gs://bucket/mad", None, google), "do this")
    azure = {
        "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=us;AccountKey=a==;"
    }
    presigned = cloud_storage("az://box/mad", CloudSettings(prefix="az://box", presign=True), azure)
    ensure_storage(there.client, 7, presigned, "do this")
    ensure_storage(there.client, 7, cloud_storage("az://box", None, {}), "do this")
    always = {
        "project": 7,
        "title": "MAD pictures",
        "synchronizable": False,
        "use_blob_urls": True,
        "presign_ttl": 15,
    }
    assert there.sent == [
        (
            "POST",
            "gcs",
            {
                **always,
                "bucket": "bucket",
                "prefix": "mad",
                "presign": False,
                "google_application_credentials": '{"type": "service_account"}',
            },
        ),
        (
            "POST",
            "azure",
            {
                **always,
                "container": "box",
                "prefix": "mad",
                "presign": True,
                "account_name": "us",
                "account_key": "a==",
            },
        ),
        ("POST", "azure", {**always, "container": "box", "prefix": "", "presign": False}),
    ]
    with pytest.raises(SettingsError, match="for s3:// only, not for gs://bucket"):
        cloud_storage("gs://bucket", CloudSettings(prefix="gs://bucket", endpoint_url="http://x"), google)
    with pytest.raises(SettingsError, match=r"GOOGLE_APPLICATION_CREDENTIALS names .*/gone\.json"):
        cloud_storage("gs://bucket", None, {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "gone.json")})


def test_keys_are_in_no_message_even_if_the_server_repeats_them(recorder: Callable[[int], Recorder]) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIA123", "AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_SESSION_TOKEN": "t0ken"}
    storage: Storage = cloud_storage("s3://bucket/mad", None, keys)
    with pytest.raises(SettingsError, match=r"storage record for bucket: .*\*\*\*.*; do this") as told:
        ensure_storage(recorder(400).client, 7, storage, "do this")
    for text in (str(told.value), repr(storage)):
        assert not any(secret in text for secret in keys.values())
