"""Images that tasks name: where each comes from, and everything that is refused."""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from mad_backend.errors import ImageError, SettingsError
from mad_backend.pictures import PictureFolder
from mad_backend.serving.target_service import TargetService
from mad_backend.settings import Secrets, TaskImagesSettings
from mad_backend.settings_file import load_settings
from tests.file_server import answering, file, resolver, status, unconnected
from tests.served_world import asking
from tests.serving.image_settings import CONTENT, Change, change, reader, refusal, settings_at, sign
from tests.sync.picture_hosts import Buckets, buckets

__all__ = ["change", "unconnected"]

NOTHING = reader(settings_at(Path("/nowhere")), Secrets(label_studio_token=None))


@pytest.fixture
def s3() -> Iterator[Buckets]:
    with buckets() as found:
        yield found


def test_a_host_of_the_settings_is_asked_without_our_token(change: Change) -> None:
    with answering(lambda _: file(CONTENT)) as server:
        tasks = reader(change(private_hosts=[server.rule]))
        assert tasks.read(f" {server.url('/a.png?signature=SECRET')}\n") == CONTENT
        said = refusal(reader(change()), server.url("/a.png?signature=SECRET"))
    assert "Authorization" not in server.asked[0]
    assert len(server.asked) == 1
    assert said.startswith(f"image {server.url()}: {server.rule} is not allowed by serve.images.hosts")


def test_what_no_setting_allows_is_refused_before_anything_is_sent(
    change: Change, unconnected: list[object]
) -> None:
    resolve = resolver(inside_test="10.0.0.7", cloud_test="169.254.169.254")
    tasks = reader(change(hosts=["*"]), resolve=resolve)
    for address, why in {
        "file:///etc/passwd": "serve.images.roots",
        "/etc/passwd": "serve.images.roots",
        "file://localhost/etc/passwd": "serve.images.roots",
        "file://server/share/a.png": "serve.images.places",
        "http://169.254.169.254/latest/meta-data/": "never asked",
        "http://cloud.test/": "never asked",
        "http://inside.test/a.png": "serve.images.private_hosts",
        "http://127.0.0.1/": "serve.images.private_hosts",
        "http://2130706433/": "serve.images.private_hosts",
        "https://[::1]/": "serve.images.private_hosts",
        "http://inside.test:8080/": "serve.images.hosts",
        "http://me:SECRET@inside.test/": "has a user before its host",
        "s3://bucket/a.png": "serve.images.places",
        "gs://bucket/a.png": "serve.images.places",
        "azure-blob://box/a.png": "serve.images.places",
        "s3://me:SECRET@bucket/a.png": "serve.images.places",
        "http://[": "has no host",
        "http://[::1": "has no host",
        "https://a.test:port/": "has no host",
        "ftp://me:SECRET@a.test/a.png": "serve.images.places",
        "simplecache::s3://bucket/a.png": "serve.images.places",
        "memory://a.png": "serve.images.places",
        "Data:image/png;base64,SECRET": "wanted a whole address",
        "javascript:alert(1)": "wanted a whole address",
        "a.png": "wanted a whole address",
        "../a.png?signature=SECRET": "wanted a whole address",
        "/a.png?signature=SECRET": "serve.images.roots",
        "\\\\server\\share\\a.png": "wanted a whole address",
        "//me:SECRET@a.test/a.png": "wanted a whole address",
        "": "wanted a whole address",
        "/a\0.png": "none of them invisible",
        "http://a.test/\r\nHost: b.test": "none of them invisible",
        "http://a.test/" + "a" * 9000: "at most 8192 characters",
    }.items():
        said = refusal(tasks, address)
        assert why in said, address
        assert said.isprintable()
        assert len(said) < 500
    assert not unconnected


@given(
    st.text(max_size=60) | st.from_regex(r"(http|s3|file|data|gs|//|/data/upload/|/tasks/1)[:/]*[ -~]{0,60}")
)
def test_no_text_at_all_makes_us_connect_where_nothing_is_allowed(address: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", lambda *_: pytest.fail("connected"))
        with pytest.raises(ImageError):
            NOTHING.read(address)


def test_our_own_pictures_are_read_from_their_folder_for_whoever_has_their_signature(change: Change) -> None:
    settings = change(serve={"public_url": "https://mad.test/backend"}, max_bytes=1024)
    name = f"{7:024x}-a.jpg"
    folder = PictureFolder(settings.pictures, sign)
    folder.write(name, CONTENT)
    tasks = reader(settings)
    assert tasks.read("https://mad.test/backend" + folder.address(name)) == CONTENT
    for path in (
        f"/pictures/{name}",
        f"/pictures/{name}?s=SECRET",
        f"/pictures/{7:024x}-b.jpg?s={sign(name)}",
        "/pictures/../x?s=1",
    ):
        assert "no such picture" in refusal(tasks, f"https://mad.test/backend{path}")
    folder.write(name, bytes(1025))
    assert "limit is 1,024" in refusal(tasks, "https://mad.test/backend" + folder.address(name))


def test_files_of_this_machine_are_read_below_the_roots_alone(change: Change, tmp_path: Path) -> None:
    root, other = tmp_path / "photos", tmp_path / "photos-private"
    for folder in (root / "deep", other):
        folder.mkdir(parents=True)
        (folder / "a b.png").write_bytes(CONTENT)
    (root / "link.png").symlink_to(root / "deep" / "a b.png")
    (root / "out.png").symlink_to(other / "a b.png")
    (root / "outside").symlink_to(other)
    (root / "circle.png").symlink_to(root / "circle.png")
    os.mkfifo(root / "pipe.png")
    (root / "long.png").write_bytes(bytes(2000))
    (tmp_path / "named").symlink_to(root)
    tasks = reader(change(roots=[tmp_path / "named"], max_bytes=1024))
    for name in ("deep/a b.png", "link.png", "../photos/deep/a b.png"):
        assert tasks.read(f"{root}/{name}") == CONTENT
    assert tasks.read(f"{tmp_path}/named/deep/a b.png") == CONTENT
    assert tasks.read(f"file://{root}/deep/a%20b.png") == CONTENT
    for name in (
        "out.png",
        "outside/a b.png",
        "../photos-private/a b.png",
        "circle.png",
        "../../../etc/passwd",
    ):
        assert "serve.images.roots" in refusal(tasks, f"{root}/{name}"), name
    assert "serve.images.roots" in refusal(tasks, f"file://{root}/%2e%2e/photos-private/a%20b.png")
    for name, why in {
        "pipe.png": "it is not a file",
        "deep": "it is not a file",
        "long.png": "the limit is 1,024",
        "no": "does not exist",
        "a" * 300: "cannot be read",
    }.items():
        assert why in refusal(tasks, f"{root}/{name}")
    assert "serve.images.roots" in refusal(tasks, "/dev/zero")


def test_places_are_read_on_whole_components_of_their_paths(change: Change, s3: Buckets) -> None:
    for key in ("web/a.png", "web/deep/ä b.png", "website/a.png", "web/long.png"):
        s3.client.put_object(Bucket="pictures", Key=key, Body=bytes(2000) if "long" in key else CONTENT)
    options = {"endpoint_url": s3.url}
    tasks = reader(change(places=["s3://pictures/web/"], storage_options=options, max_bytes=1024))
    for name in ("a.png", "deep/ä b.png"):
        assert tasks.read(f"s3://pictures/web/{name}") == CONTENT
    for address in (
        "s3://pictures/website/a.png",
        "s3://pictures/web/../website/a.png",
        "s3://pictures/web",
        "s3://other/web/a.png",
        "gs://pictures/web/a.png",
        "s3://pictures",
    ):
        assert "serve.images.places" in refusal(tasks, address)
    assert "does not exist" in refusal(tasks, "s3://pictures/web/none.png")
    assert "more than 1,024 bytes" in refusal(tasks, "s3://pictures/web/long.png")
    assert (
        reader(change(places=["s3://pictures"], storage_options=options)).read("s3://pictures/website/a.png")
        == CONTENT
    )


def test_settings_that_cannot_be_meant_name_their_key(change: Change, tmp_path: Path) -> None:
    for place in ("https://a.test/photos", "/photos", "file:///photos"):
        with pytest.raises(ValidationError, match="is no store; wanted s3://"):
            change(places=[place])
    with pytest.raises(SettingsError, match=r"serve\.images\.hosts: .a:b. is no host"):
        reader(change(hosts=["a:b"]))
    with pytest.raises(SettingsError, match=r"label_studio\.url"):
        reader(change({"url": "http://a.test:99999"}))
    folder = "{kind: folder, path: f}"
    (tmp_path / "mad.yaml").write_text(
        "workspace: w\nlabel_set: l.yaml\npool: &s [{name: p, images: i}]\ns0: *s\nt0: *s\n"
        f"models: {{name: m, target: {folder}, competing: {{o: {folder}}}}}\n"
        "serve: {images: {roots: [photos, /srv/photos]}}\n"
    )
    assert load_settings(tmp_path / "mad.yaml").serve.images.roots == (
        tmp_path / "photos",
        Path("/srv/photos"),
    )


def huge_png(side: int) -> bytes:
    """Of so many pixels in each direction, by its head alone."""
    made = io.BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(made, format="PNG")
    png = made.getvalue()
    head = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


def test_tasks_with_refused_images_get_no_regions_and_the_log_says_why(
    world: Any, open_service: Callable[..., TargetService], caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "/huge.png": file(huge_png(40_000)),
        "/text.png?s=SECRET": file(b"<p>SECRET</p>"),
        "/gone": status(404),
    }
    with answering(answers.__getitem__) as server:
        images = TaskImagesSettings(private_hosts=(server.rule,), hosts=("*",))
        serve = world.settings.serve.model_copy(update={"images": images})
        service = open_service(world.settings.model_copy(update={"serve": serve}))
        refused = {
            server.url("/huge.png"): "has 40000 x 40000 pixels",
            server.url(
                "/text.png?s=SECRET"
            ): f"image {server.url('/text.png')} is not in a format that is read",
            server.url("/gone"): "answered 404",
            "file:///etc/passwd": "image file:///etc/passwd: it is not in a folder of serve.images.roots",
            "http://169.254.169.254/x": "169.254.169.254, which is never asked",
            "/data/upload/19/x.jpg": "set MAD_LABEL_STUDIO_TOKEN",
        }
        tasks = [{"id": n, "data": {"image": address}} for n, address in enumerate(refused)]
        found = service.predict(asking(tasks))
    assert [answer.regions for answer in found] == [()] * len(refused)
    for why in refused.values():
        assert why in caplog.text
    assert "SECRET" not in caplog.text
