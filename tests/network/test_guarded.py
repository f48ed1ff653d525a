"""Files from hosts that somebody else has named: how much and how long we read, and where a redirect may lead."""

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mad_backend.network.addresses import Reach, WebAddress
from mad_backend.network.guarded import Permit
from mad_backend.network.tokens import LegacyToken
from tests.file_server import (
    answering,
    dripping,
    file,
    resolver,
    sent_on,
    status,
)  # fmt: skip
from tests.network.fetching import CONTEXT, fetch, judge, own, refusal

CONTENT = b"\x89PNG and more" * 100
TOKEN = LegacyToken("5ec2e7" * 7)


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
