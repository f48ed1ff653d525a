"""Pictures as browsers get them: only by their signed address, and read by scripts of Label Studio's pages only."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from mad_backend.errors import PoolError
from mad_backend.pictures import PictureFolder
from mad_backend.serving.target_service import TargetService
from mad_backend.settings import LabelStudioSettings, Secrets
from mad_backend.store.store import Store
from mad_backend.web.app import create_app
from mad_backend.web.media import origins

NAME = "0123456789abcdef01234567-a.jpg"
OTHER = "0123456789abcdef01234567-b.jpg"
CONTENT = b"\xff\xd8\xff the bytes of a photo"
LABEL_STUDIO = "https://labels.example.com"


@pytest.fixture
def folder(world: Any) -> PictureFolder:
    """Where the settings of `world` have pictures; two are there."""
    found = PictureFolder(world.settings.pictures, world.store.remote.sign)
    found.write(NAME, CONTENT)
    found.write(OTHER, b"another")
    return found


@pytest.fixture
def client(world: Any, service: TargetService) -> FlaskClient:
    """The application of `mad serve`, for a Label Studio at two addresses."""
    there = LabelStudioSettings(url=f"{LABEL_STUDIO}/label-studio")
    settings = world.settings.model_copy(update={"label_studio": there})
    secrets = Secrets(label_studio_url="http://127.0.0.1:8080/", webhook_secret=SecretStr("s3cret"))
    return create_app(service, world.store, settings, secrets).test_client()


def test_a_signed_address_gives_the_picture(client: FlaskClient, folder: PictureFolder) -> None:
    answer = client.get(folder.address(NAME))
    assert (answer.status_code, answer.data) == (200, CONTENT)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, max-age=3600"
    assert "Set-Cookie" not in answer.headers
    head = client.head(folder.address(NAME))
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == str(len(CONTENT))
    part = client.get(folder.address(NAME), headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.data) == (206, CONTENT[:3])


def test_a_browser_that_has_the_picture_is_told_that_it_is_the_same(
    client: FlaskClient, folder: PictureFolder
) -> None:
    address = folder.address(NAME)
    first = client.get(address)
    for condition in (
        {"If-None-Match": first.headers["ETag"]},
        {"If-Modified-Since": first.headers["Last-Modified"]},
    ):
        again = client.get(address, headers={**condition, "Origin": LABEL_STUDIO})
        assert (again.status_code, again.data) == (304, b"")
        assert again.headers["Access-Control-Allow-Origin"] == LABEL_STUDIO
        assert again.headers["Cache-Control"] == "private, max-age=3600"
    folder.write(NAME, CONTENT + b", drawn anew")
    changed = client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.data) == (200, CONTENT + b", drawn anew")


def test_whatever_is_wrong_the_answer_is_the_same_404(
    world: Any, client: FlaskClient, folder: PictureFolder
) -> None:
    root = world.settings.pictures
    (root / ("0" * 24 + "-d.jpg")).mkdir()
    (root / f".{NAME}.7.tmp").write_bytes(b"half")
    sign = world.store.remote.sign
    signed = {name: sign(name) for name in (NAME, OTHER)}
    names = (
        "../mad.sqlite3", "..%2fmad.sqlite3", "%2e%2e%2fmad.sqlite3", f"x/{NAME}", f"%2e/{NAME}", f".{NAME}.7.tmp",
        NAME.upper(), f"{NAME}%0a", f"{NAME}%00", f"{'9' * 24}-a.jpg", f"{'0' * 24}-d.jpg", "",
        "%ff", "\u0661" + NAME[1:],
    )  # fmt: skip
    wrong = [f"/pictures/{name}?s={sign(name)}" for name in names]
    wrong += [
        f"/pictures/{NAME}?s={signature}"
        for signature in ("", "0" * 32, signed[OTHER], signed[NAME][:-1], "%ff")
    ]
    wrong += [
        f"/pictures/{NAME}?s={signed[NAME].upper()}x",
        f"/pictures/{NAME}",
        f"/pictures/{NAME}?t={signed[NAME]}",
    ]
    answers = {address: client.get(address) for address in wrong}
    assert {address: a.status_code for address, a in answers.items()} == dict.fromkeys(wrong, 404)
    assert len({a.data for a in answers.values()}) == 1
    assert client.post(folder.address(NAME)).status_code == 405


def test_only_pages_of_label_studio_may_read_pictures(
    client: FlaskClient, folder: PictureFolder, caplog: pytest.LogCaptureFixture
) -> None:
    address = folder.address(NAME)
    for origin in (LABEL_STUDIO, "http://127.0.0.1:8080", "http://localhost:8080"):
        answer = client.get(address, headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in answer.headers["Vary"]
    assert not caplog.messages
    strangers = ("https://other.example.com", "null", "http://labels.example.com", f"{LABEL_STUDIO}:8443")
    for origin in (*strangers, *strangers):
        answer = client.get(address, headers={"Origin": origin})
        assert answer.status_code == 200
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" in answer.headers["Vary"]
    assert len(caplog.messages) == len(strangers), "each is told once"
    assert "a page of https://other.example.com" in caplog.text
    assert "set label_studio.url" in caplog.text
    plain = client.get(address)
    assert "Access-Control-Allow-Origin" not in plain.headers
    assert "Origin" in plain.headers["Vary"]


def test_browsers_that_ask_for_leave_first_get_it(client: FlaskClient, folder: PictureFolder) -> None:
    wish = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "baggage,sentry-trace"}
    answer = client.options(folder.address(NAME), headers={"Origin": LABEL_STUDIO, **wish})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == LABEL_STUDIO
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert answer.headers["Access-Control-Allow-Headers"] == "*"
    refused = client.options(folder.address(NAME), headers={"Origin": "https://other.example.com", **wish})
    assert "Access-Control-Allow-Origin" not in refused.headers


def test_signatures_are_not_logged_and_are_of_one_store(
    world: Any, client: FlaskClient, folder: PictureFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client.get(folder.address(NAME), headers={"Origin": "https://other.example.com"})
    assert world.store.remote.sign(NAME) not in caplog.text
    other = Store(f"sqlite:///{tmp_path}/other.sqlite3")
    assert client.get(PictureFolder(tmp_path, other.remote.sign).address(NAME)).status_code == 404
    other.close()
    again = Store(f"sqlite:///{tmp_path}/mad.sqlite3")
    assert client.get(PictureFolder(tmp_path, again.remote.sign).address(NAME)).status_code == 200
    again.close()


def test_a_picture_deleted_a_moment_ago_is_a_404(
    world: Any, client: FlaskClient, folder: PictureFolder
) -> None:
    (world.settings.pictures / NAME).unlink()
    assert client.get(folder.address(NAME)).status_code == 404


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("https://labels.example.com/label-studio/", {"https://labels.example.com"}),
        ("https://Labels.Example.com:443", {"https://labels.example.com"}),
        ("http://labels:80/x", {"http://labels"}),
        ("http://labels:443", {"http://labels:443"}),
        ("http://[fd00::7]:8080", {"http://[fd00::7]:8080"}),
        ("http://localhost:8080", {f"http://{h}:8080" for h in ("localhost", "127.0.0.1", "[::1]")}),
        ("http://[::1]", {f"http://{h}" for h in ("localhost", "127.0.0.1", "[::1]")}),
    ],
)
def test_origins_are_spelt_as_browsers_do(address: str, wanted: set[str]) -> None:
    assert origins(address) == wanted


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_bytes(b"a file")
    folder = PictureFolder(tmp_path / "pictures", str)
    with pytest.raises(
        PoolError, match=r"cannot write pictures into .*/pictures: .*; check that it is a folder"
    ):
        folder.write(NAME, CONTENT)


def test_a_relative_folder_is_where_the_process_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = PictureFolder(Path("pictures"), str)
    folder.write(NAME, CONTENT)
    assert folder.find(NAME, NAME) == tmp_path / "pictures" / NAME


def test_a_reader_never_sees_half_a_picture(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path, str)
    contents = {b"a" * 200_000, b"b" * 300_000}
    folder.write(NAME, b"a" * 200_000)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(lambda: [folder.write(NAME, c) for _ in range(50) for c in contents])
        while not written.done():
            file = folder.find(NAME, NAME)
            assert file is not None
            assert file.read_bytes() in contents
        written.result()
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
