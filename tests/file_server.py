"""A web server on loopback whose answers tests write byte by byte, and sockets that connect nowhere."""

import datetime
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[str], bytes | Iterable[bytes]]
"""Of a path, what the server sends: at once, or part by part."""


@dataclass
class FileServer:
    """`asked` are the heads of the requests it was sent."""

    port: int
    asked: list[str] = field(default_factory=list)

    @property
    def rule(self) -> str:
        """What serve.images.private_hosts says to allow it."""
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/a.png") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def answering(
    answer: Answer, wrap: Callable[[socket.socket], socket.socket] = lambda s: s
) -> Iterator[FileServer]:
    """`wrap` may speak TLS first."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # whoever asked has had enough
                channel = wrap(self.request)
                channel.settimeout(10)
                head = b""
                while b"\r\n\r\n" not in head and (part := channel.recv(65536)):
                    head += part
                # A body too, since closing on what was not read would reset the connection.
                length = re.search(rb"content-length: (\d+)\r\n", head.lower())
                body = head.partition(b"\r\n\r\n")[2]
                while length and len(body) < int(length[1]) and (part := channel.recv(65536)):
                    body += part
                if head:
                    found.asked.append(head.decode("latin-1"))
                    sent = answer(head.split()[1].decode("latin-1"))
                    for part in [sent] if isinstance(sent, bytes) else sent:
                        channel.sendall(part)
                channel.close()

    class Server(ThreadingTCPServer):
        daemon_threads = False
        block_on_close = True

    server = Server(("127.0.0.1", 0), Handler)
    found = FileServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def file(content: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: image/png", *headers]
    if not any(h.startswith(("Content-Length", "Transfer-Encoding")) for h in headers):
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def sent_on(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def status(number: int) -> bytes:
    return f"HTTP/1.1 {number} So\r\nContent-Length: 12\r\n\r\n<b>SECRET</b".encode()


def dripping(start: bytes, drop: bytes = b"x", pause_s: float = 0.05, drops: int = 200) -> Iterator[bytes]:
    """`start` at once, then a drop at a time."""
    yield start
    for _ in range(drops):
        time.sleep(pause_s)
        yield drop


def signed_for(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server of that name (or address) shows, and what trusts it; both from `folder`/server.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    is_name = not name[0].isdigit()
    alternative = x509.DNSName(name) if is_name else x509.IPAddress(ipaddress.ip_address(name))
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + pem)
    shows = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shows.load_cert_chain(folder / "server.pem")
    return shows, ssl.create_default_context(cadata=pem.decode())


def resolver(**names: str) -> Callable[..., list[tuple[object, ...]]]:
    """As getaddrinfo, of names with "_" for "." and addresses with spaces between; others are what they are."""

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        given = names.get(host.replace(".", "_"))
        if given is None:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in given.split()
        ]

    return resolve


@pytest.fixture
def unconnected(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """No socket connects to anything; where one was about to."""
    tried: list[object] = []

    def refuse(_: socket.socket, where: object, *__: object) -> None:
        tried.append(where)
        raise AssertionError(f"a packet was about to leave for {where}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    return tried
