"""`mad doctor` on the way to and fro: pictures as browsers see them, `mad serve`, and webhooks."""

from pathlib import Path

from flask import Flask, Response, request
from pydantic import SecretStr

import tests.sync.clinic
from mad_backend.store.store import Store
from sync.doctor.findings import Verdict
from tests.conftest import RunningLabelStudio
from tests.sync.clinic import (
    SECRET,
    Clinic,
    free_port,
    is_empty,
    nothing_refused,
    proxy,
    serving,
    untouched,
)
from tests.sync.picture_hosts import buckets, running

ROOT = Path(__file__).parents[2]
there = tests.sync.clinic.there


def test_a_request_that_is_too_large_for_the_proxy_names_its_setting(there: Clinic) -> None:
    def refuse() -> Response | None:
        return Response("too large", 413) if (request.content_length or 0) > 1_000_000 else None

    with proxy(there.settings.label_studio.url, refuse, untouched) as url:
        found = there.with_settings(label_studio={"url": url}).wrong("upload limits")
    assert "client_max_body_size 32m;" in found.cure
    there.fine("upload limits")


def test_pictures_that_the_page_may_not_read_are_told_with_the_setting(there: Clinic) -> None:
    with serving(there) as url:
        served = there.with_settings(label_studio={"media": "serve"}, serve={"public_url": url})
        elsewhere = served.with_settings(label_studio={"url": "http://labels.example.com"}).with_secrets(
            label_studio_url=there.settings.label_studio.url
        )
        found = elsewhere.wrong("pictures")
        assert "address of each browser's own machine" in found.told

        def stripped(response: Response) -> None:
            response.headers.pop("Access-Control-Allow-Origin", None)

        with proxy(url, nothing_refused, stripped) as front:
            found = served.with_settings(serve={"public_url": front}).wrong("pictures")
        assert "sends no Access-Control-Allow-Origin" in found.told
        assert "pass on the header Origin" in found.cure
        secure = served.with_settings(
            label_studio={"url": "https://labels.example.com"}, serve={"public_url": "http://mad.example.com"}
        ).with_secrets(label_studio_url=there.settings.label_studio.url)
        assert "nothing insecure" in secure.wrong("pictures").told
    assert "nothing listens" in served.wrong("pictures").told


def test_local_files_work_or_tell_the_two_variables(there: Clinic, label_studio: RunningLabelStudio) -> None:
    root = label_studio.server.log_path.parent / "files"
    local = {"media": "local-files", "local_files": {"root": root, "folder": "doctor"}}
    there.with_settings(label_studio=local).fine("pictures")
    assert is_empty(root / "doctor")
    other = {"media": "local-files", "local_files": {"root": there.root, "folder": "doctor"}}
    found = there.with_settings(label_studio=other).wrong("pictures")
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={there.root}" in found.told + found.cure


def test_uploads_and_photos_at_their_own_addresses(there: Clinic) -> None:
    there.fine("pictures")
    allowed: dict[str, str] = {}
    app = Flask(__name__, static_folder=str(there.root / "images"), static_url_path="/photos")

    @app.after_request
    def with_leave(response: Response) -> Response:
        response.headers.extend(allowed)
        return response

    with running(app) as url:
        manifest = there.root / "photos.csv"
        manifest.write_text(f"image\n{url}/photos/0.png\n")
        pool = [{"name": "pool", "manifest": manifest}]
        as_is = there.with_settings(label_studio={"media": "as-is"}, pool=pool)
        found = as_is.wrong("pictures")
        assert f"Access-Control-Allow-Origin: {there.settings.label_studio.url}" in found.cure
        allowed["Access-Control-Allow-Origin"] = "*"
        as_is.fine("pictures")
    here = there.with_settings(label_studio={"media": "as-is"}).wrong("pictures")
    assert "no browser can ask for" in here.told


def test_a_bucket_that_browsers_are_sent_to_needs_its_cors_rule(there: Clinic) -> None:
    with buckets() as store:
        cloud = {"prefix": "s3://pictures/mad", "endpoint_url": store.url, "presign": True}
        presigned = there.with_settings(label_studio={"media": "cloud", "cloud": cloud})
        through = there.with_settings(label_studio={"media": "cloud", "cloud": {**cloud, "presign": False}})
        through.fine("pictures")

        def stripped(response: Response) -> None:
            response.headers.pop("Access-Control-Allow-Origin", None)

        with proxy(store.url, nothing_refused, stripped) as front:
            closed = presigned.with_settings(label_studio={"cloud": {**cloud, "endpoint_url": front}})
            found = closed.wrong("pictures")
        assert "AllowedOrigins" in found.cure
        assert "presign: false" in found.cure
        presigned.fine("pictures")


def test_mad_serve_that_is_absent_or_another_is_told_apart(
    there: Clinic, label_studio: RunningLabelStudio, tmp_path: Path
) -> None:
    nothing = {"serve": {"port": free_port()}}
    found = there.with_settings(**nothing).ask("mad serve", "ML backend")
    assert [found[name][0].verdict for name in ("mad serve", "ML backend")] == [Verdict.WARNING] * 2
    public = there.with_settings(serve={"public_url": f"http://127.0.0.1:{free_port()}"})
    assert "start `mad serve`" in public.wrong("mad serve").cure
    assert public.wrong("ML backend").cure == "start `mad serve`"
    with serving(there) as url:
        here = there.with_settings(serve={"public_url": url})
        models = {**here.raw["models"], "name": "deeplab"}
        assert 'serves "scenes"' in here.with_settings(models=models).wrong("mad serve").told
        port = int(url.rpartition(":")[2])
        lost = there.with_settings(serve={"port": port, "public_url": f"http://127.0.0.1:{free_port()}"})
        assert "runs at" in lost.wrong("mad serve").told
    stranger = there.with_settings(serve={"public_url": label_studio.server.url})
    assert "is not `mad serve`" in stranger.wrong("mad serve").told


def test_webhooks_that_do_not_arrive_are_told_apart(there: Clinic, tmp_path: Path) -> None:
    with serving(there) as url:
        here = there.with_settings(serve={"public_url": url})
        here.fine("webhook delivery")
        other = here.with_secrets(webhook_secret=SecretStr("another"))
        found = other.wrong("webhook delivery")
        assert "MAD_WEBHOOK_SECRET" in found.cure
        assert SECRET not in str(found)
        short = there.with_settings(serve={"public_url": "http://mad:9090"}).wrong("webhook address")
        assert "a dot in the host's name" in short.told
    # Label Studio of these tests asks a dead proxy for all but 127.0.0.1: as a firewall, seen from there only.
    with serving(there, host="127.0.0.2") as url:
        behind = there.with_settings(serve={"public_url": url})
        found = behind.ask("webhook delivery", "ML backend")
        for name in ("webhook delivery", "ML backend"):
            assert "although this one does" in found[name][0].told
            assert "serve.public_url" in found[name][0].cure
    (tmp_path / "other").mkdir()
    elsewhere = Store(f"sqlite:///{tmp_path}/other/mad.sqlite3")
    with serving(there, elsewhere) as url:
        here = there.with_settings(serve={"public_url": url})
        assert "another database" in here.wrong("webhook delivery").told
        assert "different databases" in here.wrong("mad serve").told
    elsewhere.close()
