"""Which web servers may be asked for a file that somebody else has named: by name, and by where the name leads."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self
from urllib.parse import quote, urlsplit

from mad_backend.errors import SettingsError

PORTS: Final = {"http": 80, "https": 443}

_NAME: Final = re.compile(r"[a-z0-9._-]{1,253}", re.ASCII)
_HOST: Final = re.compile(r"(\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>(\*\.)?[^:\[\]*]+|\*))(:(?P<port>\d{1,5}))?")
_AS_IT_IS: Final = "!#$%&'()*+,/:;=?@[]~"
"""Characters of a path or query that are not quoted: they mean something there (RFC 3986), or are quoted already."""
_PRIVATE: Final = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "100.64.0.0/10", "fc00::/7", "::1/128",
    )
)  # fmt: skip
_NEVER: Final = tuple(
    ip_network(text)
    for text in (
        # They give a machine of a cloud its credentials (Azure, Oracle, Alibaba, AWS), or lie among such.
        "168.63.129.16/32", "192.0.0.0/24", "100.100.100.200/32", "fd00:ec2::/32",
        "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",  # tunnels, examples
    )
)  # fmt: skip
_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""All of IPv6 that has been given to anybody (IANA); elsewhere are hosts' own forms, and what later uses may be."""
_NAT64: Final = IPv6Network("64:ff9b::/96")
"""How networks without IPv4 name hosts that have nothing else (RFC 6052)."""


class Reach(IntEnum):
    """How near a server may be. `NEVER` is for link-local addresses (a cloud's metadata), multicast and the like."""

    PUBLIC = 0
    PRIVATE = 1
    NEVER = 2


def reach_of(address: str) -> Reach:
    """Of an IP address as a resolver gives it; raises nothing: what is no address is never reached."""
    try:
        found = ip_address(address)
    except ValueError:
        return Reach.NEVER
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return Reach.NEVER
        found = _inner(found)
    if found.is_link_local or found.is_multicast or found.is_unspecified or _is_in(found, _NEVER):
        return Reach.NEVER
    if _is_in(found, _PRIVATE):
        return Reach.PRIVATE
    is_given = isinstance(found, IPv4Address) or found in _GLOBAL_V6
    return Reach.PUBLIC if found.is_global and is_given else Reach.NEVER


def _inner(address: IPv6Address) -> IPv4Address | IPv6Address:
    """What a connection to it would reach, where that is a host of IPv4."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _is_in(address: IPv4Address | IPv6Address, networks: Iterable[object]) -> bool:
    return any(address in network for network in networks)  # type: ignore[operator]  # either version may be asked


@dataclass(frozen=True)
class WebAddress:
    """An http(s) address in its parts; `host` in lower case and without brackets, `target` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, address: str) -> Self:
        """Raises ValueError with the reason, which never quotes a login."""
        try:
            parts = urlsplit(address)
            host = (parts.hostname or "").encode("idna").decode("ascii").lower()
            host = str(ip_address(host)) if ":" in host else host
            port = parts.port
            query = f"?{parts.query}" if parts.query else ""
            target = quote(f"{parts.path or '/'}{query}", safe=_AS_IT_IS)
        except ValueError:
            raise ValueError("has no host that can be asked") from None
        if parts.scheme not in PORTS:
            raise ValueError("is not of http or https")
        if parts.username is not None or parts.password is not None:
            raise ValueError("has a user before its host, which is not sent")
        if ":" not in host and not _NAME.fullmatch(host):
            raise ValueError("has no host that can be asked")
        return cls(parts.scheme, host, port or PORTS[parts.scheme], target)

    @property
    def netloc(self) -> str:
        """Host, with the port unless it is the scheme's own; as in an address, and in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"


class HostRules:
    """The hosts that may be asked: those of `hosts` at public addresses, those of `private_hosts` at private ones too.

    A rule is "images.example.com", "*.example.com" (the names below it) or "*", with ":8443" where the port is not the
    scheme's own. Raises SettingsError, naming the key in serve.images, for what is no rule.
    """

    def __init__(self, hosts: Iterable[str], private_hosts: Iterable[str]) -> None:
        # The wider leave first.
        self._rules = [(_rule("private_hosts", text), Reach.PRIVATE) for text in private_hosts]
        self._rules += [(_rule("hosts", text), Reach.PUBLIC) for text in hosts]

    def reach(self, address: WebAddress) -> Reach | None:
        """How near the host may be; None: it may not be asked at all."""
        host = address.host.rstrip(".")
        for (pattern, port), reach in self._rules:
            is_meant = host.endswith(pattern[1:]) if pattern.startswith("*") else host == pattern
            if is_meant and address.port == (port or PORTS[address.scheme]):
                return reach
        return None


def _rule(key: str, text: str) -> tuple[str, int | None]:
    """(host, or what begins with "*"; port)."""
    found = _HOST.fullmatch(text.lower())
    if found is None:
        raise SettingsError(
            f'serve.images.{key}: "{text}" is no host; wanted images.example.com, *.example.com, [fd00::5]:9000 or *'
        )
    port = int(found["port"]) if found["port"] else None
    try:
        return (str(ip_address(found["v6"])) if found["v6"] else found["name"]), port
    except ValueError:
        raise SettingsError(f'serve.images.{key}: "{text}" is no address of IPv6') from None
