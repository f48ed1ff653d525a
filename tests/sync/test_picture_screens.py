"""Pictures of several hosts as a real Chromium shows them in Label Studio, canvases included."""

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask import Flask, Response
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mad_backend.core.labels import LabelClass, LabelMap, LabelSet, RgbImage
from mad_backend.core.records import ProjectRole
from mad_backend.pictures import PictureFolder
from mad_backend.settings import CloudSettings
from mad_backend.store.store import Store
from mad_backend.web.media import media
from sync.hosts import Bucket, OwnAddresses, ServedPictures, StoredPictures
from sync.pictures import UploadedPictures
from sync.push import PushItem
from sync.rating_project import push_rating
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.picture_hosts import buckets, running

CHROMIUM = Path("/usr/bin/chromium")
LABELS = LabelSet("ponds", (LabelClass("background", (0, 0, 0)), LabelClass("pond", (200, 0, 0))))
HEIGHT, WIDTH = 200, 300
GREEN, BLUE = (40, 160, 60), (0, 0, 255)
RED_OVER_GREEN = (134, 64, 24)
"""About what both the overlay (0.55 red) and Label Studio's own mask (0.6) look like."""
TIMEOUT_MS = 60_000


def meadow() -> tuple[RgbImage, LabelMap]:
    """A green photo (200, 300, 3), blue at its top left; the label map says pond in the right half."""
    rgb = np.full((HEIGHT, WIDTH, 3), GREEN, np.uint8)
    rgb[:50, :50] = BLUE
    label_map = np.zeros((HEIGHT, WIDTH), np.uint8)
    label_map[:, WIDTH // 2 :] = 1
    return rgb, label_map


@pytest.fixture(scope="module")
def page(label_studio: RunningLabelStudio) -> Iterator[Page]:
    """A page in which a rater is logged in; nothing but this machine is asked for anything."""
    if not CHROMIUM.exists():
        reason = f"needs Chromium at {CHROMIUM}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(TIMEOUT_MS)
        page.route(
            lambda url: not url.startswith(("http://127.0.0.1:", "data:", "blob:")), lambda r: r.abort()
        )
        page.goto(f"{label_studio.server.url}/user/login/")
        page.fill("input[name=email]", label_studio.emails[0])
        page.fill("input[name=password]", label_studio.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/user/login" not in url)
        yield page
        browser.close()


def silent(_done: int, _total: int) -> None:
    """No progress shown."""


def assert_seen(page: Page, there: RunningLabelStudio, project_id: int, pictures: int) -> None:
    """The stream shows so many pictures: the photo upright, and as the last one, or over it, the map."""
    page.goto(f"{there.server.url}/projects/{project_id}/data?labeling=1")
    page.get_by_text("Labeling Instructions").wait_for()
    page.keyboard.press("Escape")
    shown = (
        f"[...document.images].filter(i => i.naturalWidth == {WIDTH} && i.getBoundingClientRect().width > 50)"
    )
    page.wait_for_function(f"{shown}.length == {pictures}")
    found: dict[str, tuple[int, ...]] = {}
    for _ in range(60):  # canvases are drawn some time after their picture has come
        boxes = page.evaluate(
            f"{shown}.map(i => i.getBoundingClientRect()).map(r => [r.left, r.top, r.width])"
        )
        (first, last) = min(boxes), max(boxes)
        with Image.open(io.BytesIO(page.screenshot())) as shot:
            pixels = np.asarray(shot.convert("RGB"))
        found = {
            "corner": color(pixels, first, 20, 20),
            "left": color(pixels, last, 100, 120),
            "right": color(pixels, last, 250, 120),
        }
        wanted = {"corner": BLUE, "left": GREEN, "right": RED_OVER_GREEN}
        if all(max(abs(np.subtract(found[k], wanted[k]))) < 24 for k in wanted):
            return
        page.wait_for_timeout(200)
    raise AssertionError(found)


def color(pixels: RgbImage, box: tuple[float, float, float], column: int, row: int) -> tuple[int, ...]:
    """Of the screen, where picture pixel (row, column) is."""
    left, top, width = box
    scale = width / WIDTH
    return tuple(pixels[int(top + row * scale), int(left + column * scale)].tolist())


def test_pictures_of_mad_serve_are_seen_beside_each_other_and_under_a_mask(
    label_studio: RunningLabelStudio, store: Store, page: Page, tmp_path: Path
) -> None:
    folder = PictureFolder(tmp_path / "pictures", store.remote.sign)
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(media(folder, [label_studio.server.url]))
    items = [PushItem("a tell-tale name", meadow, "/a/tell-tale/path.jpg")]
    with running(app) as url:
        host = ServedPictures(folder, url)
        rating = push_rating(label_studio.admin, store, 1, "Served", LABELS, items, report=silent, host=host)
        masks = push_segmentation(
            label_studio.admin,
            store,
            1,
            "Served masks",
            LABELS,
            items,
            model_version="f",
            report=silent,
            host=host,
        )
        assert_seen(page, label_studio, rating.project_id, 2)
        assert_seen(page, label_studio, masks.project_id, 1)
    assert sorted(p.name[24:] for p in (tmp_path / "pictures").iterdir()) == ["-a.jpg", "-a.jpg", "-b.jpg"]
    for role in (ProjectRole.RATING, ProjectRole.SEGMENTATION):
        (task_id,) = store.remote.tasks(1, role).values()
        assert "tell-tale" not in str(label_studio.admin.get(f"/api/tasks/{task_id}/", "looking"))


def test_pictures_that_the_browser_fetches_from_a_bucket_are_seen_under_a_mask(
    label_studio: RunningLabelStudio, store: Store, page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    items = [PushItem("img", meadow)]
    with buckets() as s3, caplog.at_level(logging.INFO, "werkzeug"):
        settings = CloudSettings(prefix="s3://pictures/mad", endpoint_url=s3.url, presign=True)
        host = StoredPictures(label_studio.admin, Bucket(settings, os.environ))
        masks = push_segmentation(
            label_studio.admin,
            store,
            1,
            "Bucket masks",
            LABELS,
            items,
            model_version="f",
            report=silent,
            host=host,
        )
        assert_seen(page, label_studio, masks.project_id, 1)
    signed = [line for line in caplog.messages if "GET /pictures/mad/" in line and "Signature" in line]
    assert len(signed) == 2, "the first was asked for by the host, the second by the browser"


def test_a_photo_at_its_own_address_is_turned_upright_like_its_label_map(
    label_studio: RunningLabelStudio, store: Store, page: Page
) -> None:
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise", as telephones write it
    Image.fromarray(np.rot90(meadow()[0])).save(turned, format="JPEG", exif=exif, quality=95)
    app = Flask(__name__, static_folder=None)

    @app.get("/photo.jpg")
    def photo() -> Response:
        return Response(
            turned.getvalue(), 200, {"Access-Control-Allow-Origin": "*"}, content_type="image/jpeg"
        )

    host = OwnAddresses(label_studio.admin, UploadedPictures(label_studio.admin), None, {})
    with running(app) as url:
        items = [PushItem("img", meadow, f"{url}/photo.jpg")]
        masks = push_segmentation(
            label_studio.admin,
            store,
            1,
            "Turned masks",
            LABELS,
            items,
            model_version="f",
            report=silent,
            host=host,
        )
        assert_seen(page, label_studio, masks.project_id, 1)
