"""Fetches under rules that a test gives, and what their refusals say."""

import socket
import ssl
from typing import Any

import pytest

from mad_backend.errors import ImageError
from mad_backend.network.addresses import HostRules, WebAddress
from mad_backend.network.guarded import GuardedWeb, Judge, Permit
from tests.file_server import (
    FileServer,
)  # fmt: skip

CONTEXT = ssl.create_default_context()


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
