"""Bytes and listings: this machine, a store in memory, and a web server on the loopback."""

import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from mad_backend.errors import ImageError, MissingRuntimeError, PoolError
from mad_backend.pool.files import FIRST_BYTES, etag_of, find_files, read_bytes, shown

SUFFIXES = (".png",)
WHAT = 'source "s"'


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A store that fsspec keeps in memory: the same code path as s3:// or gs://."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


class Web:
    """What a web server on the loopback answers, by path, and what it was asked."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.refusals: list[int] = []
        self.asked: list[str] = []
        self.url = ""
        self.sent = 0


@pytest.fixture
def web() -> Iterator[Web]:
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(f"{self.command} {self.path}")
            body = found.bodies.get(self.path.partition("?")[0])
            status = found.refusals.pop(0) if found.refusals else 200 if body is not None else 404
            self.send_response(status)
            content = body if status == 200 and body is not None else b""
            self.send_header("Content-Length", str(len(content)))
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                for start in range(0, len(content), 65536):
                    try:
                        self.wfile.write(content[start : start + 65536])
                    except OSError:
                        return
                    found.sent += 65536

        do_HEAD = do_GET  # noqa: N815 - the name is http.server's

        def log_message(self, *_: object) -> None:
            """Not on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_local_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"abc")
    assert read_bytes(path) == read_bytes(str(path)) == b"abc"


def test_what_cannot_be_read_on_this_machine_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"image .*gone\.png does not exist"):
        read_bytes(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read: it is not a file"):
        read_bytes(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="cannot be read: it is not a file"):
        read_bytes(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_bytes("a\0b.png")


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(10**12)  # a sparse file: reading it would end this process
    with pytest.raises(ImageError, match=r"has 1,000,000,000,000 bytes; the limit is 536,870,912"):
        read_bytes(path)


def test_the_etag_of_a_local_file_changes_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"abc")
    before = etag_of(path)
    assert before == etag_of(str(path)) != ""
    path.write_bytes(b"abcd")
    assert etag_of(path) not in ("", before)
    path.unlink()
    assert etag_of(path) == ""


def test_a_folder_is_listed_deeply_with_the_etags_of_its_images(tmp_path: Path) -> None:
    for name in ("a.png", "deep/er/b.PNG", "deep/notes.txt", "c.png/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "around").symlink_to(tmp_path)  # followed, it would never end
    found = sorted(find_files(tmp_path, {}, SUFFIXES, WHAT))
    assert [f.relative for f in found] == ["a.png", "c.png/d.png", "deep/er/b.PNG", "link.png"]
    assert all(f.address == str(tmp_path / f.relative) and f.etag == etag_of(f.address) for f in found)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(PoolError, match=r'source "s": cannot list .*closed: Permission denied'):
        list(find_files(tmp_path, {}, SUFFIXES, WHAT))


def test_a_store_is_listed_and_read_like_a_folder(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("a.png", "deep/b.PNG", "notes.txt"):
        memory.pipe_file(f"/pool/{name}", name.encode())
    memory.pipe_file("/pool2/c.png", b"of another prefix")
    for root in ("memory://pool", "memory:///pool/"):
        found = {f.relative: f for f in find_files(root, {}, SUFFIXES, WHAT)}
        assert set(found) == {"a.png", "deep/b.PNG"}
        assert all(read_bytes(f.address) == f.relative.encode() for f in found.values())
    before = found["a.png"].etag
    assert before
    assert etag_of("memory://pool/a.png")
    memory.pipe_file("/pool/a.png", b"other")
    after = {f.relative: f.etag for f in find_files("memory://pool", {}, SUFFIXES, WHAT)}
    assert after["a.png"] != before


def test_a_long_file_of_a_store_is_read_whole_or_refused_after_its_first_part(
    memory: fsspec.AbstractFileSystem,
) -> None:
    content = os.urandom(FIRST_BYTES + 5)
    memory.pipe_file("/long.png", content)
    assert read_bytes("memory://long.png") == content
    assert read_bytes("memory://long.png", limit=len(content)) == content
    with pytest.raises(ImageError, match=rf"has {len(content):,} bytes; the limit is {len(content) - 1:,}"):
        read_bytes("memory://long.png", limit=len(content) - 1)
    memory.pipe_file("/short.png", b"1234")
    with pytest.raises(ImageError, match="has more than 3 bytes"):
        read_bytes("memory://short.png", limit=3)
    with pytest.raises(ImageError, match=r"memory://none\.png does not exist"):
        read_bytes("memory://none.png")


def test_a_web_server_gives_bytes_and_etags(web: Web) -> None:
    web.bodies["/a.png"] = b"abc"
    web.headers["ETag"] = '"v1"'
    assert read_bytes(f"{web.url}/a.png?size=large") == b"abc"
    assert web.asked == ["GET /a.png?size=large"]
    assert etag_of(f"{web.url}/a.png") == "v1"
    assert etag_of(f"{web.url}/none.png") == ""
    web.headers = {"Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT"}
    assert etag_of(f"{web.url}/a.png") == "3-Wed, 21 Oct 2026 07:28:00 GMT"
    web.headers = {}
    assert etag_of(f"{web.url}/a.png") == ""


def test_a_web_servers_refusal_is_the_images_fault_and_hides_the_signature(web: Web) -> None:
    with pytest.raises(ImageError, match=rf"^image {web.url}/gone\.png does not exist$"):
        read_bytes(f"{web.url}/gone.png?signature=HUSH")
    web.refusals = [403]
    with pytest.raises(ImageError, match=r"may not be read.*~/\.netrc") as caught:
        read_bytes(f"{web.url}/a.png?signature=HUSH")
    assert "HUSH" not in str(caught.value)


def test_a_web_server_in_trouble_is_asked_again_and_then_given_up(web: Web) -> None:
    web.bodies["/a.png"] = b"abc"
    web.refusals = [503, 429]
    assert read_bytes(f"{web.url}/a.png") == b"abc"
    web.refusals = [500] * 3
    with pytest.raises(ImageError, match=r"cannot be read: 500"):
        read_bytes(f"{web.url}/a.png")
    assert len(web.asked) == 6
    web.refusals = [400] * 3
    with pytest.raises(ImageError, match=r"cannot be read: 400"):
        read_bytes(f"{web.url}/a.png")
    assert len(web.asked) == 7
    with pytest.raises(ImageError, match=r"image http://127\.0\.0\.1:1/a\.png cannot be read"):
        read_bytes("http://127.0.0.1:1/a.png")


def test_a_web_server_cannot_send_more_than_the_limit(web: Web) -> None:
    web.bodies["/long.png"] = bytes(64 * 2**20)
    with pytest.raises(ImageError, match="has more than 1,000 bytes"):
        read_bytes(f"{web.url}/long.png", limit=1000)
    assert web.sent < 64 * 2**20


def test_options_of_a_store_do_not_confuse_the_web(web: Web) -> None:
    web.bodies["/a.png"] = b"abc"
    assert read_bytes(f"{web.url}/a.png", {"endpoint_url": "http://127.0.0.1:1", "anon": True}) == b"abc"


@pytest.mark.parametrize(
    ("address", "extra"),
    [
        ("gs://b/a.png", "gcs"),
        ("gcs://b/a.png", "gcs"),
        ("az://b/a.png", "azure"),
        ("abfs://b/a.png", "azure"),
    ],
)
@pytest.mark.parametrize("ask", [read_bytes, etag_of, lambda a: list(find_files(a, {}, SUFFIXES, WHAT))])
def test_a_store_whose_package_is_missing_names_the_extra(
    address: str, extra: str, ask: Callable[[str], object]
) -> None:
    package = {"gcs": "gcsfs", "azure": "adlfs"}[extra]
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingRuntimeError, match=rf"pip install 'mad-segmentation\[{extra}\]'"):
        ask(address)


def test_a_scheme_that_nobody_knows_is_named() -> None:
    with pytest.raises(PoolError, match=r"s4://b/a\.png: fsspec cannot open such an address"):
        read_bytes("s4://b/a.png")


def test_addresses_are_shown_without_login_and_query() -> None:
    assert shown("https://me:HUSH@host/a.png?signature=HUSH") == "https://host/a.png"
    assert shown("s3://bucket/a@b.png") == "s3://bucket/a@b.png"
    assert shown("/data/what?.png") == "/data/what?.png"
