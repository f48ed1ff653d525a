"""Files from hosts that somebody else has named: where we connect to, and how much and how long we read."""

import gzip
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.errors import ImageError
from mad_backend.network.addresses import HostRules, Reach, WebAddress, reach_of
from mad_backend.network.guarded import GuardedWeb, Judge, Permit
from mad_backend.network.tokens import LegacyToken
from tests.file_server import (
    FileServer,
    answering,
    dripping,
    file,
    resolver,
    sent_on,
    signed_for,
    status,
    unconnected,
)  # fmt: skip

__all__ = ["unconnected"]

CONTENT = b"\x89PNG and more" * 100
CONTEXT = ssl.create_default_context()
TOKEN = LegacyToken("5ec2e7" * 7)


def judge(
    hosts: tuple[str, ...] = (), private: tuple[str, ...] = (), context: ssl.SSLContext = CONTEXT
) -> Judge:
    rules = HostRules(hosts, private)

    def decide(place: WebAddress) -> Permit:
        reach = rules.reach(place)
        if reach is None:
            raise ImageError(f"{place.netloc} is not allowed")
        return Permit(reach, context)

    return decide


def fetch(address: str, decide: Judge, resolve: Any = socket.getaddrinfo, **limits: Any) -> bytes:
    web = GuardedWeb(**{"max_bytes": 10_000, "timeout_s": 5, **limits}, resolve=resolve)
    return web.fetch(WebAddress.of(address), decide, "image x")


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        fetch(*args, **options)
    assert "SECRET" not in str(caught.value)
    return str(caught.value)


def own(server: FileServer, *further: FileServer) -> Judge:
    return judge(private=tuple(s.rule for s in (server, *further)))


def test_a_file_comes_as_it_is_by_a_request_that_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password SECRET")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering(lambda _: file(CONTENT, "Set-Cookie: a=b")) as server:
        for _ in range(2):
            assert fetch(server.url("/a b.png?x=1"), own(server)) == CONTENT
    head = server.asked[1].splitlines()
    assert head[0] == "GET /a%20b.png?x=1 HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in head[1:] if line} <= {
        "host", "accept-encoding", "user-agent", "connection",
    }  # fmt: skip
    assert f"Host: {server.rule}" in head


def test_content_may_come_in_chunks_or_without_a_length() -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (CONTENT[:7], CONTENT[7:])) + b"0\r\n\r\n"
    with answering(
        lambda path: (
            b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT
            if path == "/old"
            else file(chunks, "Transfer-Encoding: chunked")
        )
    ) as server:
        assert fetch(server.url("/old"), own(server)) == CONTENT
        assert fetch(server.url("/new"), own(server)) == CONTENT


@pytest.mark.parametrize(
    ("answer", "limit"),
    [
        (lambda: file(b"", "Content-Length: 10001"), "it has 10,001 bytes; serve.images.max_bytes is 10,000"),
        (lambda: dripping(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 6000, 0), "more than 10,000 bytes"),
        (
            lambda: dripping(file(b"", "Transfer-Encoding: chunked"), b"1770\r\n" + b"x" * 6000 + b"\r\n", 0),
            "more than 10,000 bytes",
        ),
    ],
    ids=["told", "without a length", "in chunks"],
)
def test_what_is_too_long_is_not_read_to_its_end(answer: Callable[[], Any], limit: str) -> None:
    with answering(lambda _: answer()) as server:
        assert limit in refusal(server.url(), own(server))


def test_content_that_ends_early_is_no_file() -> None:
    answers = {
        "/short": file(CONTENT, "Content-Length: 5000"),
        "/chunk": file(b"ff\r\nabc", "Transfer-Encoding: chunked"),
        "/head": b"HTTP/1.1 200 OK\r\nContent-Le",
        "/none": b"",
        "/noise": b"SECRET\r\n\r\n",
    }
    with answering(answers.__getitem__) as server:
        assert "broke off after 1,300 of 5,000 bytes" in refusal(server.url("/short"), own(server))
        for path in ("/chunk", "/none", "/noise"):
            assert "did not answer, or broke off" in refusal(server.url(path), own(server))
        assert "sent nothing" in refusal(server.url("/head"), own(server))


def test_a_packed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with answering(lambda _: file(bomb, "Content-Encoding: gzip")) as server:
        assert "sends it packed ('gzip')" in refusal(server.url(), own(server), max_bytes=100_000)


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", file(b"", "Content-Length: 5000"), b"HTTP/1.0 200 OK\r\n\r\n"],
    ids=["nothing", "head", "content", "endless content"],
)
def test_an_answer_that_drips_is_given_up_in_time(start: bytes) -> None:
    with answering(lambda _: dripping(start, b"" if not start else b"x", 0.02, 30)) as server:
        began = time.monotonic()
        assert "longer than serve.images.timeout_s (0.3 s)" in refusal(
            server.url(), own(server), timeout_s=0.3
        )
        assert time.monotonic() - began < 0.6


def test_the_time_is_that_of_all_hops_together() -> None:
    def slowly(path: str) -> Any:
        return dripping(b"", sent_on("/on"), 0.15, 1)

    with answering(slowly) as server:
        assert "serve.images.timeout_s" in refusal(server.url(), own(server), timeout_s=0.4)
    assert len(server.asked) < 5


def test_redirects_are_followed_five_times_and_each_is_judged() -> None:
    def answer(path: str) -> bytes:
        number = int(path.rpartition("/")[2])
        return (
            sent_on(f"../b/{number - 1}", (301, 302, 303, 307, 308)[number % 5]) if number else file(CONTENT)
        )

    judged = []

    def watching(place: WebAddress) -> Permit:
        judged.append(place.target)
        return own(server)(place)

    with answering(answer) as server:
        assert fetch(server.url("/a/5"), watching) == CONTENT
        assert judged == ["/a/5", *(f"/b/{n}" for n in (4, 3, 2, 1, 0))]
        assert "sends us on more than 5 times" in refusal(server.url("/a/6"), own(server))


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data", "not allowed"),
        ("http://other.test/", "other.test is not allowed"),
        ("http://metadata.test/", "169.254.169.254, which is never asked"),
        ("//127.0.0.1:1/", "127.0.0.1:1 is not allowed"),
        ("file:///etc/passwd", "is not of http or https"),
        ("http://me:SECRET@public.test/", "has a user before its host"),
        ("http://[::ffff:169.254.169.254]/", "not allowed"),
        ("http://[", ""),
    ],
)
def test_a_redirect_to_what_is_not_allowed_is_not_followed(location: str, why: str) -> None:
    resolve = resolver(metadata_test="169.254.169.254", public_test="93.184.216.34")
    with answering(lambda _: sent_on(location)) as server:
        decide = judge(("public.test", "metadata.test"), (server.rule,))
        assert why in refusal(server.url(), decide, resolve)
    assert len(server.asked) == 1


def test_a_token_goes_only_to_where_the_judge_gives_it() -> None:
    def by_host(place: WebAddress) -> Permit:
        return Permit(Reach.PRIVATE, CONTEXT, TOKEN if f"{place.host}:{place.port}" == ours.rule else None)

    with answering(lambda _: file(CONTENT)) as other, answering(lambda _: sent_on(other.url())) as ours:
        assert fetch(ours.url(), by_host) == CONTENT
    assert f"Authorization: Token {'5ec2e7' * 7}" in ours.asked[0]
    assert "Authorization" not in other.asked[0]
    with answering(lambda _: status(403)) as ours:
        assert "answered 403; check the token, MAD_LABEL_STUDIO_TOKEN" in refusal(ours.url(), by_host)


def test_any_other_answer_is_told_by_its_number_alone() -> None:
    with answering(lambda path: status(int(path[1:]))) as server:
        for number in (204, 206, 304, 401, 404, 500):
            assert refusal(server.url(f"/{number}"), own(server)).endswith(f" answered {number}")


@pytest.mark.parametrize(
    "answer",
    [
        "127.0.0.1",
        "10.1.2.3",
        "::1",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "93.184.216.34 10.0.0.1",
    ],
)
def test_a_public_host_must_not_be_at_a_private_address(answer: str, unconnected: list[object]) -> None:
    said = refusal("https://a.test/", judge(("a.test",)), resolver(a_test=answer))
    assert "a.test is at " in said
    assert "a private address; only hosts of serve.images.private_hosts may have one" in said
    assert not unconnected


@pytest.mark.parametrize(
    "answer",
    ["169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::", "224.0.0.1", "::ffff:169.254.169.254"],
)
def test_no_rule_lets_us_ask_a_link_local_address(answer: str, unconnected: list[object]) -> None:
    for decide in (judge(("*",)), judge((), ("*",))):
        assert "which is never asked" in refusal("http://a.test/", decide, resolver(a_test=answer))
    assert not unconnected


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1",
        "[::1]",
        "[::ffff:7f00:1]",
        "0x7f000001",
        "１２７.1",
    ],
)
def test_a_loopback_address_in_any_spelling_is_not_public(host: str, unconnected: list[object]) -> None:
    assert "a private address" in refusal(f"http://{host}/", judge(("*",)), resolver())
    assert not unconnected


def test_we_connect_to_the_address_that_was_checked_though_the_name_says_another_later() -> None:
    with answering(lambda _: file(CONTENT)) as server:
        answers = ["127.0.0.1", "169.254.169.254", "169.254.169.254"]

        def rebinding(host: str, port: int, **_: object) -> Any:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

        decide = judge((), (f"a.test:{server.port}",))
        address = f"http://a.test:{server.port}/a.png"
        assert fetch(address, decide, rebinding) == CONTENT
        assert len(answers) == 2
        assert f"Host: a.test:{server.port}" in server.asked[0]
        assert "never asked" in refusal(address, decide, rebinding)
    assert len(server.asked) == 1


def test_another_address_of_the_host_is_tried_when_one_does_not_answer() -> None:
    with answering(lambda _: file(CONTENT)) as server:
        decide = judge((), (f"a.test:{server.port}",))
        for answer in ("127.0.0.2 127.0.0.1", "::1 127.0.0.1"):
            assert fetch(f"http://a.test:{server.port}/", decide, resolver(a_test=answer)) == CONTENT
        said = refusal(f"http://a.test:{server.port}/", decide, resolver(a_test="127.0.0.2 127.0.0.3"))
        assert "did not answer, or broke off (ConnectionRefusedError)" in said


def test_a_name_that_nobody_knows_says_so() -> None:
    assert "the name a.test is not known" in refusal("http://a.test/", judge(("a.test",)), resolver())


def test_certificates_are_checked_for_the_name_not_the_address(tmp_path: Path) -> None:
    shows, trusts = signed_for("a.test", tmp_path)
    names: list[str | None] = []
    shows.sni_callback = lambda _socket, name, _context: names.append(name)
    resolve = resolver(a_test="127.0.0.1", b_test="127.0.0.1")
    with answering(lambda _: file(CONTENT), lambda s: shows.wrap_socket(s, server_side=True)) as server:
        private = (f"a.test:{server.port}", f"b.test:{server.port}")
        decide = judge((), private, trusts)
        assert fetch(f"https://a.test:{server.port}/", decide, resolve) == CONTENT
        assert names == ["a.test"]
        said = refusal(f"https://b.test:{server.port}/", decide, resolve)
        assert f"no secure connection to b.test:{server.port}: Hostname mismatch" in said
        assert "self" in refusal(f"https://a.test:{server.port}/", judge((), private), resolve)
    assert len(server.asked) == 1


def test_a_handshake_that_hangs_is_given_up_in_time() -> None:
    with answering(lambda _: dripping(b"", b"", 0.02, 30)) as server:
        address = f"https://{server.rule}/"
        assert "serve.images.timeout_s" in refusal(address, own(server), timeout_s=0.3)


@given(
    st.sampled_from(["http", "https", "ftp"]),
    st.sampled_from(
        ["a.test", "b.a.test", "deep.b.a.test", "c.test", "127.0.0.1", "[::1]", "10.0.0.1", "1.1.1.1"]
    ),
    st.sampled_from(["", ":80", ":443", ":8080"]),
    st.lists(st.ip_addresses().map(str), max_size=3),
    st.sets(st.sampled_from(["a.test", "*.a.test", "*:8080", "10.0.0.1", "[::1]"])),
    st.sets(st.sampled_from(["c.test:8080", "b.a.test", "127.0.0.1:8080"])),
)
def test_nothing_is_connected_to_but_checked_addresses_of_allowed_hosts(
    scheme: str, host: str, port: str, answers: list[str], hosts: set[str], private: set[str]
) -> None:
    tried: list[tuple[Any, ...]] = []

    def note(_: socket.socket, where: tuple[Any, ...]) -> None:
        tried.append(where)
        raise ConnectionRefusedError

    rules = HostRules(hosts, private)
    names = dict.fromkeys(("a_test", "b_a_test", "deep_b_a_test", "c_test"), " ".join(answers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", note)
        patch.setattr(socket.socket, "connect_ex", note)
        try:
            place = WebAddress.of(f"{scheme}://{host}{port}/a.png")
        except ValueError:
            return
        with pytest.raises(ImageError):
            fetch(place.url, judge(tuple(hosts), tuple(private)), resolver(**names))
    reach = rules.reach(place)
    for where in tried:
        assert reach is not None
        assert reach_of(where[0]) <= reach
        assert where[0] in [*answers, host.strip("[]")]
        assert where[1] == place.port
