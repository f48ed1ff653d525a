"""Addresses of servers, as settings name them, and what lies below one."""

import posixpath
from urllib.parse import unquote, urlsplit

from mad_backend.errors import SettingsError


def check_address(url: str) -> None:
    """Raises SettingsError for what is no address of a server, or holds a password, which messages would show."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(
            "label_studio.url (or MAD_LABEL_STUDIO_URL): wanted http://host or https://host, with a port or a path "
            f"behind it where needed, got {parts.hostname or 'something else'}"
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            f"label_studio.url (or MAD_LABEL_STUDIO_URL): no user or password before {parts.hostname}, please; the "
            "token is all that is needed"
        )


def is_same_host(one: str, other: str) -> bool:
    """True for addresses of one server: scheme, host and port."""
    ports = {"http": 80, "https": 443}
    try:
        first, second = (
            (parts.scheme, parts.hostname, parts.port or ports.get(parts.scheme))
            for parts in (urlsplit(one), urlsplit(other))
        )
    except ValueError:  # a port that is no number, half of an IPv6 address
        return False
    return first == second


def is_below(address: str, base: str) -> bool:
    """True for what `base` itself serves: its host, and its path or something under it."""
    if not is_same_host(address, base):
        return False
    inside = posixpath.normpath(unquote(urlsplit(address).path) or "/")
    return f"{inside}/".startswith(f"{urlsplit(base).path.rstrip('/')}/")
