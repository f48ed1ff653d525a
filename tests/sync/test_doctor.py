"""`mad doctor` against a real server: a sound setup, and each thing that can be wrong with it, planted once."""

import io
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flask import Flask, Response, redirect, request
from pydantic import SecretStr
from rich.console import Console

import tests.sync.clinic
from mad_backend.core.rounds import RoundState
from mad_backend.network.tls import Certificates
from mad_backend.store.store import Store
from sync.doctor.display import diagnose
from sync.doctor.examination import examine
from sync.doctor.findings import Check, Finding, Verdict, ok, run_checks
from sync.doctor.situation import Situation
from sync.doctor.visits import UnreachableError, Visitor
from sync.rating_project import push_rating
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.clinic import (
    Clinic,
    free_port,
    is_empty,
    nothing_refused,
    proxy,
    serving,
)
from tests.sync.fault_proxy import ReverseProxy
from tests.sync.picture_hosts import running
from tests.sync.test_push import LABELS, items, silent
from tests.sync.test_transport import certificate

ROOT = Path(__file__).parents[2]
there = tests.sync.clinic.there


def everything_at(label_studio: RunningLabelStudio) -> dict[str, Any]:
    """What a run could leave behind."""
    admin = label_studio.admin
    return {
        "projects": {p.project_id for p in admin.projects_with("")},
        "webhooks": [h["id"] for h in admin.get("/api/webhooks/", "listing webhooks")],
        "media": sorted(
            p.name for p in (label_studio.server.log_path.parent / "data" / "media").rglob("*-z.jpg")
        ),
    }


@contextmanager
def deaf() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_sound_setup_has_nothing_wrong_and_is_left_as_it_was(
    there: Clinic, label_studio: RunningLabelStudio, store: Store
) -> None:
    before = everything_at(label_studio)
    store.remote.want_pull()
    with serving(there) as url:
        public = there.with_settings(serve={"public_url": url}, label_studio={"media": "serve"})
        found = public.ask()
    bad = {
        name: [f for f in told if f.verdict in (Verdict.WRONG, Verdict.WARNING)]
        for name, told in found.items()
    }
    assert not any(bad.values()), bad
    assert "personal" not in found["token"][0].told
    assert "reaches" in found["webhook delivery"][0].told
    assert "scenes@0" in found["ML backend"][0].told
    assert "scenes@0" in found["mad serve"][0].told
    assert found["label configuration"][0].verdict is Verdict.NOT_CHECKED
    assert everything_at(label_studio) == before
    assert is_empty(public.settings.pictures)
    assert store.remote.take_pull_wish()


def test_an_interrupted_run_is_tidied_up_by_the_next(there: Clinic, label_studio: RunningLabelStudio) -> None:
    killed = Situation(there.settings, there.secrets)
    left = killed.probe.project_id
    killed.store.close()
    assert label_studio.admin.project(left) is not None

    def interrupt(at: Situation) -> list[Finding]:
        assert at.probe.project_id != left
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(examine(there.settings, there.secrets, lambda _: None, [Check("stopped", "", interrupt)]))
    assert label_studio.admin.project(left) is None
    assert not label_studio.admin.projects_with("mad-doctor-")


def test_a_check_that_crashes_is_told_and_stops_no_other(there: Clinic) -> None:
    def crash(_: Situation) -> list[Finding]:
        raise KeyError("hush: a secret")

    checks = [
        Check("first", "", crash),
        Check("second", "", lambda _: [ok("well")]),
        Check("third", "", lambda _: [ok("well")], ("first",)),
    ]
    lines = list(run_checks(checks, Situation(there.settings, there.secrets), lambda _: None))
    assert [line.finding.verdict for line in lines] == [Verdict.WRONG, Verdict.OK, Verdict.NOT_CHECKED]
    assert "failed with KeyError at test_doctor.py" in lines[0].finding.told
    assert "secret" not in str(lines)


def test_nobody_at_the_address_is_told_apart(there: Clinic) -> None:
    port = free_port()
    found = there.with_settings(label_studio={"url": f"http://127.0.0.1:{port}"}).ask()
    assert "nothing listens" in found["reachability"][0].told
    assert {f.verdict for name in ("token", "overlap", "pictures") for f in found[name]} == {
        Verdict.NOT_CHECKED
    }
    nowhere = there.with_settings(label_studio={"url": "http://[fe80::1%25nowhere]:80"})
    assert "no host" in nowhere.wrong("reachability").told
    url = there.settings.label_studio.url.replace("http:", "https:")
    plain = there.with_settings(label_studio={"url": url}).wrong("reachability")
    assert "http://" in plain.cure
    with deaf() as silent_port, pytest.raises(UnreachableError, match="does not answer in time"):
        Visitor(Certificates(), (0.2, 0.2)).get(f"http://127.0.0.1:{silent_port}")


def test_a_certificate_that_nobody_vouches_for_names_the_setting(there: Clinic) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = there.root / "server.pem"
    pem.write_bytes(
        certificate("server", key, None).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    with ReverseProxy(there.settings.label_studio.url, tls=context) as front:
        secured = there.with_settings(label_studio={"url": front.url})
        assert "label_studio.ca_file" in secured.wrong("reachability").cure


def test_somebody_else_at_the_address_is_told_apart(there: Clinic, label_studio: RunningLabelStudio) -> None:
    app = Flask(__name__)

    @app.get("/")
    def front() -> Any:
        return redirect("/label-studio/user/login/")

    @app.get("/old/api/version")
    def old() -> Any:
        return redirect("/label-studio/api/version")

    @app.get("/down/api/version")
    def down() -> Any:
        return Response("Bad Gateway", 502)

    @app.get("/tls/api/version")
    def tls() -> Any:
        return Response("The plain HTTP request was sent to HTTPS port", 400)

    with running(app) as url:

        def cure(path: str) -> str:
            return there.with_settings(label_studio={"url": url + path}).wrong("reachability").cure

        assert cure("").endswith(f"try label_studio.url: {url}/label-studio")
        assert cure("/old") == f"set label_studio.url: {url}/label-studio"
        assert "start Label Studio" in cure("/down")
        assert url.replace("http:", "https:") in cure("/tls")


def test_an_old_release_is_a_warning_and_a_wrong_clock_is_wrong(there: Clinic) -> None:
    def alter(response: Response) -> None:
        response.headers["Date"] = "Thu, 01 Jan 2026 00:00:00 GMT"
        if request.path == "/api/version":
            response.set_data(json.dumps({"release": "1.13.1", "edition": "Community"}))

    with proxy(there.settings.label_studio.url, nothing_refused, alter) as url:
        found = there.with_settings(label_studio={"url": url}).ask("version", "clock")
    assert found["version"][0].verdict is Verdict.WARNING
    assert "1.13.1" in found["version"][0].told
    assert [f.verdict for f in found["clock"]] == [Verdict.WRONG, Verdict.OK]
    assert "behind" in found["clock"][0].told
    assert "NTP" in found["clock"][0].cure


def test_each_kind_of_wrong_token_is_told_apart(there: Clinic, label_studio: RunningLabelStudio) -> None:
    def told(token: str) -> Finding:
        return there.with_secrets(label_studio_token=SecretStr(token)).wrong("token")

    assert "legacy token" in told("0" * 40).told
    client = label_studio.raters[2]
    personal = client.send("POST", "/api/token/", "making a token")["token"]
    access = client.send("POST", "/api/token/refresh/", "drawing a token", {"refresh": personal})["access"]
    assert "lives for 5 minutes" in told(access).told
    there.with_secrets(label_studio_token=SecretStr(personal)).fine("token")
    client.send("POST", "/api/token/blacklist/", "revoking a token", {"refresh": personal})
    revoked = told(personal)
    assert "wrong or revoked" in revoked.told
    assert personal not in str(revoked)
    missing = there.with_secrets(label_studio_token=None).wrong("token")
    assert "MAD_LABEL_STUDIO_TOKEN" in missing.cure


def test_too_few_people_and_strangers_among_raters_are_wrong(there: Clinic) -> None:
    assert "rating.raters is 20" in there.with_settings(rating={"raters": 20}).wrong("people").told
    blind = {"raters": 2, "blind": True, "people": ["ANN@example.com", "nobody@example.com"]}
    found = there.with_settings(rating=blind).wrong("people")
    assert "nobody@example.com" in found.told
    assert "ANN" not in found.told
    there.fine("people")


def test_enter_keys_are_looked_up_for_raters_whose_tokens_we_hold(
    there: Clinic, label_studio: RunningLabelStudio
) -> None:
    ann, bob, cat = label_studio.emails[:3]
    tokens = {e: SecretStr(t) for e, t in zip((ann, bob, cat), label_studio.tokens, strict=False)}
    label_studio.raters[0].submit_with_enter()
    off = {"custom_hotkeys": {}}
    label_studio.raters[1].send("PATCH", "/api/current-user/hotkeys/", "forgetting the keys", off)
    tokens[cat] = tokens[ann]
    found = there.with_secrets(rater_tokens=tokens).ask("Enter key")["Enter key"]
    assert [f.verdict for f in found] == [Verdict.WARNING, Verdict.WRONG, Verdict.OK]
    assert bob in found[0].told
    assert f"{cat} in MAD_RATER_TOKENS is that of {ann}" in found[1].told
    assert ann in found[2].told


def test_changed_projects_of_a_round_are_told_with_what_to_change(
    there: Clinic, label_studio: RunningLabelStudio, store: Store
) -> None:
    admin = label_studio.admin
    rating = push_rating(admin, store, 1, "Rating", LABELS, items(2), raters=3, report=silent)
    drawing = push_segmentation(
        admin, store, 1, "Drawing", LABELS, items(2), model_version="scenes@0", report=silent
    )
    names = ("label configuration", "overlap", "model_version")

    def wrong() -> dict[str, Finding]:
        found = there.ask(*names)
        return {n: f for n in names for f in found[n] if f.verdict is Verdict.WRONG}

    assert wrong() == {}
    project = admin.project(drawing.project_id)
    assert project is not None
    admin.patch_project(rating.project_id, maximum_annotations=2)
    admin.patch_project(
        drawing.project_id,
        show_collab_predictions=False,
        label_config=project.label_config.replace("cat", "tiger"),
    )
    found = wrong()
    assert f'PATCH /api/projects/{rating.project_id}/ {{"maximum_annotations": 3}}' in found["overlap"].cure
    assert '"scenes@0"' in found["model_version"].cure
    assert "interface was changed" in found["label configuration"].told
    admin.patch_project(drawing.project_id, show_collab_predictions=True, model_version="")
    assert "empty canvas, since its model_version" in wrong()["model_version"].told
    admin.delete_project(drawing.project_id)
    assert "was deleted" in wrong()["label configuration"].told
    store.rounds.advance(1, RoundState.CREATED, RoundState.CANCELLED, datetime.now(UTC))
    assert wrong() == {}


def test_lines_fit_and_say_what_to_do_and_json_has_the_same(
    there: Clinic, capsys: pytest.CaptureFixture[str]
) -> None:
    few = there.with_settings(rating={"raters": 19}, serve={"port": free_port()})
    console = Console(width=100, record=True, file=io.StringIO())
    assert not diagnose(few.settings, few.secrets, console, as_json=False)
    shown = console.export_text()
    assert "→ invite more (Organization > Add Members), or lower rating.raters" in shown
    assert "1 wrong, 2 warnings" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert there.secrets.label_studio_token is not None
    assert there.secrets.label_studio_token.get_secret_value() not in shown
    capsys.readouterr()
    gone = there.with_settings(label_studio={"url": f"http://127.0.0.1:{free_port()}"})
    assert not diagnose(gone.settings, gone.secrets, console, as_json=True)
    entries = json.loads(capsys.readouterr().out)
    assert [e["name"] for e in entries if e["verdict"] == "wrong"] == ["reachability"]
    assert set(entries[0]) == {"name", "verdict", "told", "cure"}


def test_the_command_fails_where_something_is_wrong(there: Clinic) -> None:
    config = there.root / "mad.yaml"
    gone = there.with_settings(label_studio={"url": f"http://127.0.0.1:{free_port()}"})
    config.write_text(json.dumps(gone.raw, default=str))
    ran = subprocess.run(
        [sys.executable, "-m", "training.cli", "doctor", "--config", str(config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MAD_LABEL_STUDIO_TOKEN": "0" * 40, "COLUMNS": "100"},
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    assert "nothing listens at" in ran.stdout
    assert "Traceback" not in ran.stderr
