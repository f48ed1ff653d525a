"""Files from hosts that somebody else has named: which address we connect to, and whose certificate we take."""

import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.errors import ImageError
from mad_backend.network.addresses import HostRules, WebAddress, reach_of
from tests.file_server import (
    answering,
    dripping,
    file,
    resolver,
    signed_for,
    unconnected,
)  # fmt: skip
from tests.network.fetching import fetch, judge, own, refusal

__all__ = ["unconnected"]

CONTENT = b"\x89PNG and more" * 100


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
