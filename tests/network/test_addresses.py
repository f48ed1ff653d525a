"""Which hosts may be asked, by name and by address."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.errors import SettingsError
from mad_backend.network.addresses import HostRules, Reach, WebAddress, reach_of


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("::ffff:93.184.216.34", Reach.PUBLIC),
        ("64:ff9b::93.184.216.34", Reach.PUBLIC),
        ("10.0.0.1", Reach.PRIVATE),
        ("172.31.255.255", Reach.PRIVATE),
        ("192.168.1.1", Reach.PRIVATE),
        ("127.255.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("::1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE),
        ("::ffff:127.0.0.1", Reach.PRIVATE),
        ("::ffff:10.0.0.1", Reach.PRIVATE),
        ("64:ff9b::10.0.0.1", Reach.PRIVATE),
        ("169.254.169.254", Reach.NEVER),
        ("169.254.0.1", Reach.NEVER),
        ("::ffff:169.254.169.254", Reach.NEVER),
        ("64:ff9b::169.254.169.254", Reach.NEVER),
        ("64:ff9b:1::10.0.0.1", Reach.NEVER),
        ("fe80::1", Reach.NEVER),
        ("fe80::1%eth0", Reach.NEVER),
        ("2606:2800:220:1::1%1", Reach.NEVER),
        ("fd00:ec2::254", Reach.NEVER),
        ("168.63.129.16", Reach.NEVER),
        ("100.100.100.200", Reach.NEVER),
        ("192.0.0.192", Reach.NEVER),
        ("0.0.0.0", Reach.NEVER),
        ("0.1.2.3", Reach.NEVER),
        ("255.255.255.255", Reach.NEVER),
        ("240.0.0.1", Reach.NEVER),
        ("224.0.0.1", Reach.NEVER),
        ("198.18.0.1", Reach.NEVER),
        ("203.0.113.5", Reach.NEVER),
        ("192.88.99.1", Reach.NEVER),
        ("::", Reach.NEVER),
        ("::127.0.0.1", Reach.NEVER),
        ("::ffff:0:127.0.0.1", Reach.NEVER),
        ("2002:7f00:1::", Reach.NEVER),
        ("2002:5db8:d822::1", Reach.NEVER),
        ("2001:0:5db8:d822::1", Reach.NEVER),
        ("2001:db8::1", Reach.NEVER),
        ("3fff::1", Reach.NEVER),
        ("5f00::1", Reach.NEVER),
        ("fec0::1", Reach.NEVER),
        ("ff02::1", Reach.NEVER),
        ("/run/socket", Reach.NEVER),
        ("", Reach.NEVER),
    ],
)
def test_an_address_is_public_private_or_never_asked(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@given(st.ip_addresses())
def test_what_counts_as_public_is_global_and_not_otherwise_used(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if reach_of(str(address)) is Reach.PUBLIC:
        inner = getattr(address, "ipv4_mapped", None) or address
        assert inner.is_global or address in ipaddress.ip_network("64:ff9b::/96")
        assert not any((inner.is_multicast, inner.is_link_local, inner.is_loopback))


@given(st.ip_addresses(v=4))
def test_an_address_of_ipv4_is_judged_alike_in_its_ipv6_forms(address: ipaddress.IPv4Address) -> None:
    assert reach_of(f"::ffff:{address}") is reach_of(f"64:ff9b::{address}") is reach_of(str(address))


def reach(address: str, hosts: tuple[str, ...] = (), private: tuple[str, ...] = ()) -> Reach | None:
    return HostRules(hosts, private).reach(WebAddress.of(address))


def test_hosts_are_matched_as_a_whole_and_on_their_schemes_port() -> None:
    rules = ("images.example.com", "*.example.org", "odd.example.com:8443", "[2606::5]:81")
    for address in (
        "http://images.example.com/a",
        "https://IMAGES.example.com:443/a",
        "http://images.example.com./a",
        "https://a.b.example.org",
        "http://odd.example.com:8443/",
        "http://[2606:0:0::5]:81/",
    ):
        assert reach(address, rules) is Reach.PUBLIC, address
    for address in (
        "http://example.com/a",
        "http://a.images.example.com/",
        "http://images.example.com.evil.test/",
        "http://images.example.com:8080/",
        "https://images.example.com:80/",
        "http://example.org/",
        "http://notexample.org/",
        "http://odd.example.com/",
        "http://[2606::5]/",
    ):
        assert reach(address, rules) is None, address


def test_the_wider_leave_of_two_counts_and_a_star_is_any_name() -> None:
    assert reach("http://a.test/", ("*",)) is Reach.PUBLIC
    assert reach("http://a.test:8080/", ("*",)) is None
    assert reach("http://a.test:8080/", ("*:8080",)) is Reach.PUBLIC
    assert reach("http://a.test/", ("*",), ("a.test",)) is Reach.PRIVATE
    assert reach("http://a.test/") is None


@pytest.mark.parametrize(
    "rule", ["", "a:b", "a.*.com", "**", "http://a", "[::1", "[zz]", "[::1]x", "a:123456", "::1"]
)
def test_what_is_no_rule_names_its_key(rule: str) -> None:
    with pytest.raises(SettingsError, match=r"serve\.images\.private_hosts: "):
        HostRules((), (rule,))


def test_an_address_is_taken_apart_once() -> None:
    found = WebAddress.of("HTTPS://Example.COM:443/a b/ä%20c.png?X=1&y=/../z#part")
    assert found == WebAddress("https", "example.com", 443, "/a%20b/%C3%A4%20c.png?X=1&y=/../z")
    assert found.url == "https://example.com/a%20b/%C3%A4%20c.png?X=1&y=/../z"
    assert WebAddress.of("http://[::1]:80").url == "http://[::1]/"
    assert WebAddress.of("http://bücher.test:81").netloc == "xn--bcher-kva.test:81"
    assert WebAddress.of("http://１２７.0.0.1/").host == "127.0.0.1"


@pytest.mark.parametrize(
    "address",
    [
        "http://user@a.test/", "http://user:SECRET@a.test/", "http://:SECRET@a.test", "http://a.test\\@b.test/",
        "http://a.test\\.b.test/", "http:///a", "http://", "http://a.test:99999/", "http://a.test:x/", "http://[::1/",
        "http://[x]/", "http://a b/", "http://a%2etest/", "http://a.test,b.test/", "ftp://a.test/", "a.test/x", "",
        "http://" + "a" * 300 + ".test/", "http://a.test/\udc80",
    ],
)  # fmt: skip
def test_what_has_no_host_or_a_login_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|is not)") as caught:
        WebAddress.of(address)
    assert "SECRET" not in str(caught.value)


@given(st.text(alphabet="ahtp:/\\@.[]%#?0127&-*ｅ。 ", max_size=40))
def test_any_text_is_an_address_that_means_the_same_again_or_is_refused(text: str) -> None:
    try:
        found = WebAddress.of(f"http:{text}")
    except ValueError:
        return
    assert WebAddress.of(found.url) == found
