"""Ways to a server: certificates, and an address with a path; and what errors say of them."""

import datetime
import ipaddress
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from mad_backend.core.records import ProjectRole
from mad_backend.errors import LabelStudioError, SettingsError
from mad_backend.network.servers import check_address, is_below
from mad_backend.network.tls import Certificates
from mad_backend.settings import LabelStudioSettings, Secrets, Settings
from mad_backend.store.store import Store
from sync.client import LabelStudioClient
from sync.connection import connect
from sync.pictures import UploadedPictures
from sync.rating_project import push_rating
from sync.transport import Transport
from tests.conftest import RunningLabelStudio
from tests.sync.fault_proxy import ReverseProxy
from tests.sync.test_push import LABELS, items, silent


@dataclass(frozen=True)
class Pki:
    """Files of a throw-away authority: `ca`, a `server` and a `client` certificate with their keys, one `stranger`."""

    ca: Path
    server: Path
    client: Path
    stranger: Path

    def context(self, *, wants_client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server)
        if wants_client:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    root = tmp_path_factory.mktemp("pki")
    authorities = {}
    for name in ("ca", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        authorities[name] = (certificate(name, key, None), key)
    (root / "ca.pem").write_bytes(authorities["ca"][0].public_bytes(serialization.Encoding.PEM))
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        key = ec.generate_private_key(ec.SECP256R1())
        made = certificate(name, key, authorities[authority])
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (root / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM) + pem)
    return Pki(*(root / f"{name}.pem" for name in ("ca", "server", "client", "stranger")))


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
) -> x509.Certificate:
    """For 127.0.0.1, good for a day; without `issuer` an authority."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
    )
    signer = issuer[1] if issuer else key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    return builder.sign(signer, hashes.SHA256())


def test_everything_works_through_a_proxy_with_a_path_tls_and_a_client_certificate(
    label_studio: RunningLabelStudio, store: Store, pki: Pki
) -> None:
    pat = requests.post(
        f"{label_studio.server.url}/api/token/",
        headers={"Authorization": f"Token {label_studio.tokens[1]}"},
        timeout=30,
    ).json()["token"]
    context = pki.context(wants_client=True)
    with ReverseProxy(label_studio.server.url, path="/label-studio", tls=context) as proxy:
        settings = Settings.model_construct(
            label_studio=LabelStudioSettings(url=proxy.url + "/", ca_file=pki.ca, client_cert=pki.client)
        )
        secrets = Secrets(label_studio_token=SecretStr(pat), label_studio_url=None)
        client = connect(settings, secrets)
        assert client.current_user().email == label_studio.emails[1]
        push_rating(client, store, 1, "Behind a proxy", LABELS, items(3), report=silent)
        task = store.remote.tasks(1, ProjectRole.RATING)["secret-name-001"]
        data = client.get(f"/api/tasks/{task}/", "looking at a task")["data"]
        assert data["overlay"].startswith("/label-studio/data/upload/")
        as_given = client.download(data["overlay"], 10**6)
        assert as_given == client.download(data["overlay"].removeprefix("/label-studio"), 10**6)
        assert as_given[:3] == b"\xff\xd8\xff"
        host = UploadedPictures(client)
        assert host.lost(1, {data["image"], data["overlay"]}) == set()
        gone = data["image"].replace("-a.jpg", "-z.jpg")
        assert host.lost(1, {data["image"], gone, "https://elsewhere/data/upload/1/x"}) == {gone}
        assert "POST /label-studio/api/token/refresh/" in proxy.seen
        push_rating(client, store, 1, "Behind a proxy", LABELS, items(3), report=silent)
        assert store.remote.tasks(1, ProjectRole.RATING)["secret-name-001"] == task


def test_a_neighbour_behind_the_same_proxy_never_gets_the_token(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, str(self.headers.get("Authorization"))))
            self.send_response(302 if self.path.startswith("/label-studio/") else 200)
            if self.path.startswith("/label-studio/"):
                self.send_header("Location", "/label-studio/../other/x.jpg")
            self.end_headers()
            self.wfile.write(b"picture")

        def log_message(self, *_: object) -> None:
            """Not on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    client = LabelStudioClient(f"http://127.0.0.1:{server.server_port}/label-studio", "secret-token")
    try:
        assert client.download("/data/x.jpg", 100) == b"picture"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen == [("/label-studio/data/x.jpg", "Token secret-token"), ("/other/x.jpg", "None")]


@pytest.mark.parametrize(
    ("address", "base", "below"),
    [
        ("https://host/ls/data/x", "https://host/ls", True),
        ("https://host:443/ls", "https://host/ls", True),
        ("https://host/ls2/x", "https://host/ls", False),
        ("https://host/ls/../x", "https://host/ls", False),
        ("https://host/ls/%2e%2e/x", "https://host/ls", False),
        ("http://host/ls/x", "https://host/ls", False),
        ("https://host/x", "https://host", True),
        ("https://other/x", "https://host", False),
    ],
)
def test_what_lies_below_an_address(address: str, base: str, below: bool) -> None:
    assert is_below(address, base) is below


def test_tls_errors_name_the_setting_that_cures_them(label_studio: RunningLabelStudio, pki: Pki) -> None:
    token = label_studio.server.token

    def error(url: str, certificates: Certificates) -> str:
        with pytest.raises(LabelStudioError) as caught:
            LabelStudioClient(url, token, backoff_s=0.01, certificates=certificates).current_user()
        return str(caught.value)

    with ReverseProxy(label_studio.server.url, tls=pki.context()) as proxy:
        assert "set label_studio.ca_file" in error(proxy.url, Certificates())
        by_name = proxy.url.replace("127.0.0.1", "localhost")
        assert "use that name in label_studio.url" in error(by_name, Certificates(pki.ca))
        plain = error(proxy.url.replace("https", "http"), Certificates())
        assert "did not answer" in plain or "write https://" in plain
        trusted = LabelStudioClient(proxy.url, token, certificates=Certificates(pki.ca))
        assert trusted.version()
        blind = LabelStudioClient(proxy.url, token, certificates=Certificates(verify=False))
        assert blind.version()
    with ReverseProxy(label_studio.server.url, tls=pki.context(wants_client=True)) as proxy:
        assert "label_studio.client_cert" in error(proxy.url, Certificates(pki.ca))
        assert "label_studio.client_cert" in error(proxy.url, Certificates(pki.ca, pki.stranger))
    with ReverseProxy(label_studio.server.url) as proxy:
        assert "write http:// in label_studio.url" in error(
            proxy.url.replace("http", "https"), Certificates()
        )


def test_certificates_that_cannot_be_used_name_their_key(tmp_path: Path, pki: Pki) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    locked = tmp_path / "locked.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    locked.write_bytes(pki.ca.read_bytes() + pem)
    for options, wanted in (
        ({"ca_file": tmp_path / "absent"}, r"label_studio\.ca_file: cannot read .*absent: No such file"),
        ({"ca_file": tmp_path}, r"label_studio\.ca_file: cannot read .*Is a directory"),
        ({"ca_file": empty}, r"label_studio\.ca_file: .* no certificate in PEM"),
        ({"client_cert": tmp_path / "absent"}, r"label_studio\.client_cert: cannot read"),
        ({"client_cert": pki.ca}, r"label_studio\.client_cert: .* the key that belongs to it"),
        ({"client_cert": locked}, r"label_studio\.client_cert: .* has a password"),
    ):
        with pytest.raises(SettingsError, match=wanted):
            Certificates(**options)


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://host", "https://", "https://host/?a=b", "https://me:hush@host/ls"]
)
def test_an_address_that_is_none_is_refused_without_showing_a_password(url: str) -> None:
    settings = Settings.model_construct(label_studio=LabelStudioSettings(url=url))
    secrets = Secrets(label_studio_token=SecretStr("t"), label_studio_url=None)
    with pytest.raises(SettingsError, match=r"label_studio\.url") as caught:
        connect(settings, secrets)
    assert "hush" not in str(caught.value)
    check_address("https://host:8443/label-studio")


def test_files_are_found_below_the_base_address_however_they_are_given() -> None:
    transport = Transport("https://host/ls/", "t", 1.0, 0.1, Certificates())
    wanted = "https://host/ls/data/upload/1/a.jpg"
    for given in ("/data/upload/1/a.jpg", "/ls/data/upload/1/a.jpg", wanted):
        assert transport.absolute(given) == wanted
    assert transport.absolute("@other/x") == "https://host/ls/@other/x"
    assert transport.absolute("/data/?of=https://other/x") == "https://host/ls/data/?of=https://other/x"
    assert Transport("https://host", "t", 1.0, 0.1, Certificates()).absolute("/x") == "https://host/x"
    with pytest.raises(LabelStudioError, match="is no file of"):
        transport.exists("https://other/x", "looking")
