"""Every host of pictures, against a real Label Studio; those in buckets are test_storages.py's."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from mad_backend.errors import LabelStudioError, SettingsError
from mad_backend.pictures import PictureFolder
from mad_backend.settings import LocalFilesSettings, Settings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.hosts import LocalFiles, OwnAddresses, ServedPictures, StoredPictures, picture_host
from sync.pictures import UploadedPictures
from tests.conftest import RunningLabelStudio
from tests.sync.picture_hosts import pictures

CONFIG = '<View><Image name="image" value="$image"/></View>'
PAGE = (Path(__file__).parents[2] / "docs" / "media.md").read_text(encoding="utf-8")
EXAMPLES = {
    heading: yaml.safe_load(block)
    for heading, block in re.findall(r"^### (.+?)\n+```yaml\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
}
LIMIT = 10**6


def settings(tmp_path: Path, label_studio: dict[str, Any], **more: Any) -> Settings:
    source = {"name": "pool", "images": tmp_path}
    model = {"kind": "folder", "path": tmp_path}
    return Settings.model_validate(
        {
            "workspace": tmp_path / "work",
            "label_set": tmp_path / "labels.yaml",
            **{key: [source] for key in ("pool", "s0", "t0")},
            "models": {"name": "target", "target": model, "competing": {"other": model}},
            "label_studio": label_studio,
            **more,
        }
    )


@pytest.fixture
def project(label_studio: RunningLabelStudio) -> int:
    return label_studio.admin.create_project(title="Pictures", label_config=CONFIG).project_id


@pytest.mark.parametrize("heading", EXAMPLES)
def test_each_example_of_the_docs_chooses_its_host(
    heading: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = EXAMPLES[heading]
    if heading == "Local files":
        example["label_studio"]["local_files"]["root"] = tmp_path
    hosts: dict[str, type] = {
        "Upload": UploadedPictures,
        "Local files": StoredPictures,
        "Cloud": StoredPictures,
        "Serve": ServedPictures,
        "As is": OwnAddresses,
    }
    assert list(EXAMPLES) == list(hosts)
    found = settings(tmp_path, **example)
    nobody = LabelStudioClient("http://127.0.0.1:1", "0" * 40)
    assert isinstance(picture_host(found, store, nobody), hosts[heading])


def test_uploads_go_to_the_shelf_where_there_is_one(
    label_studio: RunningLabelStudio, store: Store, project: int, tmp_path: Path
) -> None:
    shelf = label_studio.admin.create_project(title="Shelf", label_config=CONFIG).project_id
    for media in ("upload", "as-is"):
        host = picture_host(settings(tmp_path, {"media": media}), store, label_studio.admin, lambda: shelf)
        files = pictures(2)
        there = host.place(project, files)
        assert host.place(project, files) == there
        assert {label_studio.raters[0].download(there[n], LIMIT) for n in files} == set(files.values())
    assert len(label_studio.admin.uploads(shelf)) == 2
    assert label_studio.admin.uploads(project) == {}


def test_served_pictures_have_an_address_that_tells_nothing_and_stays(store: Store, tmp_path: Path) -> None:
    found = settings(tmp_path, {"media": "serve"}, serve={"public_url": "https://mad.example.com/x/"})
    nobody = LabelStudioClient("http://127.0.0.1:1", "0" * 40)
    host = picture_host(found, store, nobody)
    files = pictures(3)
    there = host.place(7, files)
    assert host.place(8, files) == there
    assert host.own_address("/pool/a.jpg") is None
    for name, address in there.items():
        assert re.fullmatch(rf"https://mad\.example\.com/x/pictures/{name}\?s=[0-9a-f]{{32}}", address)
        file = PictureFolder(found.pictures, store.remote.sign).find(name, address[-32:])
        assert file is not None
        assert file.read_bytes() == files[name]
    assert {p.name for p in found.pictures.iterdir()} == set(files)


def test_local_files_are_given_by_the_server_once_the_project_has_a_record(
    label_studio: RunningLabelStudio, label_studio_folder: Path, project: int
) -> None:
    root = label_studio_folder / "files"
    files = pictures(3)
    for _ in range(2):  # as two processes would
        host = StoredPictures(
            label_studio.admin, LocalFiles(LocalFilesSettings(root=root, folder="round/one"), "")
        )
        there = host.place(project, files)
        assert host.place(project, files) == there
    assert there == {name: f"/data/local-files/?d=round/one/{name}" for name in files}
    assert {n: label_studio.raters[0].download(there[n], LIMIT) for n in files} == files
    anonymous = requests.get(label_studio.server.url + there[next(iter(files))], timeout=30)
    assert anonymous.status_code == 401
    (record,) = label_studio.admin.get("/api/storages/localfiles/", "looking", {"project": project})
    assert record["path"] == str(root / "round" / "one")
    with pytest.raises(LabelStudioError, match="not synchronizable"):
        label_studio.admin.send("POST", f"/api/storages/localfiles/{record['id']}/sync", "syncing")
    assert {p.name for p in (root / "round" / "one").iterdir()} == set(files)


def test_local_files_that_the_server_does_not_see_name_the_variables(
    label_studio: RunningLabelStudio, label_studio_folder: Path, project: int, tmp_path: Path
) -> None:
    elsewhere = LocalFiles(LocalFilesSettings(root=tmp_path), "")
    cure = rf"LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}, .*root_there"
    with pytest.raises(SettingsError, match=rf"must be a subdirectory of .*{cure}"):
        StoredPictures(label_studio.admin, elsewhere).place(project, pictures(1))
    root = label_studio_folder / "files"
    (name, content), *_ = pictures(1).items()
    (root / "mixed").mkdir()
    for there, found in (
        (content[::-1], "gives another file for"),
        (content * 2, "more than"),
        (None, "answered 404"),
    ):
        if there is None:
            (root / "mixed" / name).unlink()
        else:
            (root / "mixed" / name).write_bytes(there)
        other = LocalFiles(LocalFilesSettings(root=tmp_path, folder="mixed", root_there=str(root)), "")
        with pytest.raises(
            SettingsError, match=rf"{found}.*LOCAL_FILES_DOCUMENT_ROOT={root}, .*{tmp_path} here"
        ):
            StoredPictures(label_studio.admin, other).place(project, {name: content})
    with pytest.raises(SettingsError, match=r"local_files\.root: there is no folder .*/nowhere here"):
        LocalFiles(LocalFilesSettings(root=tmp_path / "nowhere"), "")


def test_local_files_of_a_server_below_a_path_have_it_in_their_address(tmp_path: Path) -> None:
    place = LocalFiles(LocalFilesSettings(root=tmp_path), "/label-studio")
    assert place.address("x-a.jpg") == "/label-studio/data/local-files/?d=mad/x-a.jpg"


def test_two_thousand_pictures_in_chunks_ask_the_server_three_times(
    label_studio: RunningLabelStudio,
    label_studio_folder: Path,
    project: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = StoredPictures(
        label_studio.admin, LocalFiles(LocalFilesSettings(root=label_studio_folder / "files"), "")
    )
    (content,) = pictures(1).values()
    names = [f"{n:024x}-a.jpg" for n in range(2000)]
    with caplog.at_level(logging.DEBUG, "urllib3.connectionpool"):
        for start in range(0, 2000, 25):
            host.place(project, dict.fromkeys(names[start : start + 25], content))
    calls = [line for line in caplog.messages if "HTTP/1.1" in line]
    assert [line.split('"')[1].split()[0] for line in calls] == ["GET", "POST", "GET"]


def test_photos_as_they_are_keep_addresses_that_browsers_or_storages_know(tmp_path: Path) -> None:
    nobody = LabelStudioClient("http://127.0.0.1:1", "0" * 40)
    host = OwnAddresses(nobody, UploadedPictures(nobody), None, {})
    same = (
        "https://photos.example.com/a%20b.jpg?size=full",
        "http://127.0.0.1:9/a.jpg",
        "s3://bucket/a b/ä.jpg",
        "gs://bucket/a.jpg",
        "/data/upload/7/0f-a.jpg",
        "/data/local-files/?d=mad/a.jpg",
    )
    assert [host.own_address(address) for address in same] == list(same)
    renamed = {
        "az://box/a.jpg": "azure-blob://box/a.jpg",
        "s3a://b/a.jpg": "s3://b/a.jpg",
        "gcs://b/c": "gs://b/c",
    }
    assert {address: host.own_address(address) for address in renamed} == renamed
    for path in (str(tmp_path / "a.jpg"), "photos/a.jpg", "", "/data/photos/a.jpg"):
        with pytest.raises(
            SettingsError, match=rf'as-is: no browser can ask for "{path}".*upload, serve, local-files'
        ):
            host.own_address(path)
    for address in ("memory://b/a.jpg", "az://box@account/a.jpg", "s3:///a.jpg"):
        with pytest.raises(SettingsError, match=r"Label Studio takes s3://bucket"):
            host.own_address(address)
