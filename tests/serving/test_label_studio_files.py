"""Files that Label Studio keeps: asked for with our token, which goes to nobody else and to nothing else."""

import os
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from mad_backend.errors import SettingsError
from mad_backend.serving.label_studio_files import LabelStudioFiles
from mad_backend.settings import Secrets
from sync.hosts import Bucket, LocalFiles, StoredPictures
from tests.conftest import RunningLabelStudio
from tests.file_server import answering, file, sent_on, signed_for, status
from tests.serving.image_settings import CONTENT, TOKEN, Change, change, reader, refusal, settings_at
from tests.sync.picture_hosts import Buckets, buckets, pictures

__all__ = ["change"]

FILES = LabelStudioFiles(settings_at(Path("/nowhere")), Secrets(label_studio_url="http://ls/base"))


@pytest.fixture
def s3() -> Iterator[Buckets]:
    with buckets() as found:
        yield found


def test_files_of_label_studio_are_asked_for_with_the_token_and_nothing_else_is(change: Change) -> None:
    with answering(lambda _: file(CONTENT)) as server:
        tasks = reader(change({"url": server.url("/ls/")}))
        for address, asked in {
            "/data/upload/3/a b-ä.png": "/ls/data/upload/3/a%20b-%C3%A4.png",
            "/ls/data/upload/3/a%20b.png?x=1": "/ls/data/upload/3/a%20b.png",
            server.url("/ls/data/upload/3/a.png#x"): "/ls/data/upload/3/a.png",
            "/data/local-files/?d=deep/a%20b.png": "/ls/data/local-files/?d=deep/a%20b.png",
            "/data/local-files?d=/a.png&x=1": "/ls/data/local-files/?d=/a.png",
            "/tasks/12/resolve/?fileuri=czM6Ly9hLw==": "/ls/tasks/12/resolve/?fileuri=czM6Ly9hLw%3D%3D",
            "/projects/1/presign/?fileuri=s3%3A//a/b.png": "/ls/projects/1/presign/?fileuri=s3%3A//a/b.png",
            "/tasks/12/resolve/?fileuri=s3://a/b.png": "/ls/tasks/12/resolve/?fileuri=s3%3A//a/b.png",
            "/storage-data/uploaded/?filepath=upload/3/a.png": "/ls/storage-data/uploaded/?filepath=upload/3/a.png",
        }.items():
            assert tasks.read(address) == CONTENT, address
            assert server.asked[-1].split()[1] == asked
            assert f"Authorization: Token {TOKEN}\r\n" in server.asked[-1]
        count = len(server.asked)
        for address in (
            "/api/projects/",
            "/data/upload/../../api/users/",
            "/data/upload/3/%2e%2e/%2e%2e/api/users/",
            "/data/upload/3/..%2f..%2fapi/users/",
            "/data/upload/3%5c..%5capi/users/",
            "/data/upload/%252e%252e/api/users",
            "/data/upload//api/users",
            "/data/upload/",
            "/data/upload/./a.png",
            "/data/avatars/1.png",
            "/data/local-files/?d=../secret.png",
            "/data/local-files/?d=a/%2e%2e/%2e%2e/b.png",
            "/data/local-files/?x=a.png",
            "/tasks/12/resolve/",
            "/tasks/12x/resolve/?fileuri=a",
            "/tasks/12/../../api/resolve/?fileuri=a",
            "/projects/1/resolve/../../api/?fileuri=a",
            "//data/upload/3/a.png",
            server.url("/data/upload/3/a.png"),
            server.url("/ls/../data/upload/3/a.png"),
            server.url("/ls/api/users/"),
            server.url("/ls/data/upload/3/a.png").replace("http:", "https:"),
            server.url("/ls/data/upload/3/a.png").replace("//", "//me:SECRET@"),
        ):
            refusal(tasks, address)
        assert len(server.asked) == count
        without = reader(change({"url": server.url("/ls")}), Secrets(label_studio_token=None))
        assert "set MAD_LABEL_STUDIO_TOKEN" in refusal(without, "/data/upload/3/a.png")
        elsewhere = Secrets(label_studio_url=server.url("/ls"), label_studio_token=SecretStr(TOKEN))
        assert (
            reader(change({"url": "http://127.0.0.1:1"}), elsewhere).read("/data/upload/3/a.png") == CONTENT
        )


@given(
    st.from_regex(
        r"(http://[lb]s(:80)?/base)?/{0,2}(data|tasks|api)/[a-z0-9./%?=&\\\\#@:_-]{0,60}", fullmatch=True
    )
)
def test_any_file_of_label_studio_is_found_in_one_spelling_that_leads_nowhere_else(address: str) -> None:
    found = FILES.find(address)
    if found is not None:
        path = found.partition("?")[0]
        assert path.startswith(("/data/upload/", "/data/local-files/", "/tasks/"))
        assert not {"", ".", ".."} & {*unquote(path).strip("/").split("/")}
        assert FILES.find(found) == found
        assert FILES.web_address(found).url == f"http://ls/base{found}"


def test_where_label_studio_sends_us_on_is_held_to_the_rules_and_gets_no_token(change: Change) -> None:
    sent: dict[str, str] = {}
    with (
        answering(lambda path: sent_on(sent[path], 303)) as server,
        answering(lambda _: file(CONTENT)) as store,
    ):
        there = {"url": server.url("")}
        cloud = {**there, "cloud": {"prefix": "s3://bucket/mad", "endpoint_url": store.url("")}}
        sent["/data/upload/1/a.png"] = store.url("/bucket/a.png?X-Amz-Signature=SECRET")
        assert "serve.images.hosts" in refusal(reader(change(there)), "/data/upload/1/a.png")
        for settings in (
            change(cloud),
            change(there, private_hosts=[store.rule]),
            change(there, places=["s3://b"], storage_options={"endpoint_url": store.url("")}),
        ):
            assert reader(settings).read("/data/upload/1/a.png") == CONTENT
            assert "Authorization" not in store.asked[-1]
        # The store's host is there for Label Studio's own files only.
        assert "serve.images.hosts" in refusal(reader(change(cloud)), store.url("/bucket/a.png"))
        for n, location in enumerate(
            ("/user/login/?next=/", "/api/users/", "/data/upload/%2e%2e/x", "http://169.254.169.254/")
        ):
            sent[f"/data/upload/1/{n}.png"] = location
            assert "not allowed by serve.images.hosts" in refusal(
                reader(change(cloud)), f"/data/upload/1/{n}.png"
            )
        sent["/data/upload/1/twice.png"] = "/data/upload/1/a.png"
        assert reader(change(cloud)).read("/data/upload/1/twice.png") == CONTENT
    assert all(f"Token {TOKEN}" in head for head in server.asked)


def test_a_refused_token_or_a_deleted_file_says_so(change: Change) -> None:
    with answering(lambda path: status(int(path[-3:]))) as server:
        tasks = reader(change({"url": server.url("")}))
        for number in (401, 403):
            said = refusal(tasks, f"/data/upload/{number}")
            assert said.endswith(f"{server.rule} answered {number}; check the token, MAD_LABEL_STUDIO_TOKEN")
        assert refusal(tasks, "/data/upload/404").endswith("answered 404")


def test_an_access_token_that_is_no_longer_taken_is_drawn_anew_once(change: Change) -> None:
    drawn: list[bytes] = []

    def answer(path: str) -> bytes:
        if path == "/api/token/refresh/":
            drawn.append(b'{"access": "access-%d"}' % len(drawn))
            return file(drawn[-1])
        is_fresh = "Bearer access-1\r\n" in server.asked[-1]
        return file(CONTENT) if is_fresh and path.endswith("/a.png") else status(401)

    with answering(answer) as server:
        tasks = reader(change({"url": server.url("")}), Secrets(label_studio_token=SecretStr("ey.a.b")))
        assert tasks.read("/data/upload/1/a.png") == CONTENT
        assert len(drawn) == 2
        assert "answered 401; check the token" in refusal(tasks, "/data/upload/1/b.png")
        assert len(drawn) == 3


def test_label_studio_is_asked_with_the_certificates_of_the_settings(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows, _ = signed_for("127.0.0.1", tmp_path)
    shows.verify_mode = ssl.CERT_REQUIRED
    pem = tmp_path / "server.pem"
    shows.load_verify_locations(pem)
    token = "eyJ0.eyJ0.sig"
    tokens = b'{"access": "drawn.from.it"}'

    def answer(path: str) -> bytes:
        return file(tokens) if path == "/api/token/refresh/" else file(CONTENT)

    with answering(answer, lambda s: shows.wrap_socket(s, server_side=True)) as server:
        there = {"url": f"https://{server.rule}", "ca_file": pem, "client_cert": pem}
        secrets = Secrets(label_studio_token=SecretStr(token))
        tasks = reader(change(there), secrets)
        with ThreadPoolExecutor(4) as threads:
            assert [*threads.map(tasks.read, ["/data/upload/1/a.png"] * 8)] == [CONTENT] * 8
        assert [head.split()[1] for head in server.asked].count("/api/token/refresh/") == 1
        assert all("Bearer drawn.from.it" in head for head in server.asked if "/data/" in head)
        for lacking, cure in (
            ({"ca_file": None}, "set label_studio.ca_file"),
            ({"client_cert": None}, "client_cert"),
        ):
            assert cure in refusal(reader(change({**there, **lacking})), "/data/upload/1/a.png")
        assert (
            reader(change({**there, "ca_file": None, "verify": False})).read("/data/upload/1/a.png")
            == CONTENT
        )
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        assert reader(change({**there, "ca_file": None})).read("/data/upload/1/a.png") == CONTENT
        strange = change(private_hosts=[server.rule])
        assert "no secure connection" in refusal(reader(strange), f"https://{server.rule}/a.png")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
        with pytest.raises(SettingsError, match=r"REQUESTS_CA_BUNDLE.*: /nowhere\.pem holds no certificates"):
            reader(strange)


def test_label_studios_local_files_are_read_where_they_lie(change: Change, tmp_path: Path) -> None:
    root = tmp_path / "files"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "a b.png").write_bytes(CONTENT)
    (root / "out.png").symlink_to("/etc/passwd")
    with answering(lambda _: file(b"of the server")) as server:
        tasks = reader(change({"url": server.url(""), "local_files": {"root": root}}))
        assert tasks.read("/data/local-files/?d=deep/a%20b.png") == CONTENT
        assert not server.asked
        for name in ("deep/there.png", "a" * 300):
            assert tasks.read(f"/data/local-files/?d={name}") == b"of the server"
        assert "label_studio.local_files.root" in refusal(tasks, "/data/local-files/?d=out.png")
    assert len(server.asked) == 2


def test_a_real_label_studio_gives_its_files_for_either_kind_of_token(
    label_studio: RunningLabelStudio, label_studio_folder: Path, change: Change, s3: Buckets
) -> None:
    admin, project = label_studio.admin, label_studio.admin.create_project(title="Images").project_id
    (name, content), *_ = files = list(pictures(2).items())
    there: dict[str, Any] = {"url": label_studio.server.url}
    local = LocalFiles(
        change({**there, "local_files": {"root": label_studio_folder / "files"}}).label_studio.local_files, ""
    )
    cloud = change(
        {
            **there,
            "cloud": {
                "prefix": "s3://pictures/mad",
                "endpoint_url": s3.url,
                "region": "us-east-1",
                "presign": True,
            },
        }
    )
    bucket = Bucket(cloud.label_studio.cloud, os.environ)
    for place in (local, bucket):
        StoredPictures(admin, place).place(project, dict(files))
    addresses = [
        *admin.upload(project, dict(files[:1])).values(),
        local.address(name),
        bucket.path(project, name),
    ]
    personal = admin.send("POST", "/api/token/", "making a token")["token"]
    try:
        for token in (label_studio.server.token, personal):
            tasks = reader(cloud, Secrets(label_studio_token=SecretStr(token)))
            assert [tasks.read(address) for address in addresses] == [content] * 3
            assert "/data/upload/1/none.jpg: " in refusal(tasks, "/data/upload/1/none.jpg")
    finally:
        admin.send("POST", "/api/token/blacklist/", "revoking a token", {"refresh": personal})
    for token in ("0" * 40, personal):
        tasks = reader(cloud, Secrets(label_studio_token=SecretStr(token)))
        assert "token" in refusal(tasks, addresses[0])
