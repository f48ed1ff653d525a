"""What raters and annotators see, in a real Chromium at 1366x768 and 1920x1080."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mad_backend.core.labels import LabelClass, LabelMap, LabelSet, RgbImage
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.rating_help import rating_help
from mad_backend.store.store import Store
from sync.pull_masks import pull_masks
from sync.pull_ratings import pull_ratings
from sync.push import PushItem
from sync.rating_project import push_rating
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.rating_tasks import make_project, project_id

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TIMEOUT_MS = 60_000
SIZES = ({"width": 1366, "height": 768}, {"width": 1920, "height": 1080})
LABELS = LabelSet(
    "park",
    (
        LabelClass("background", (0, 0, 0)),
        LabelClass("pond", (0, 90, 200)),
        LabelClass("dog & lead", (200, 0, 0)),
        LabelClass("unseen", (0, 200, 0)),
    ),
)


def scene() -> tuple[RgbImage, LabelMap]:
    """A meadow (375, 500, 3) with a pond and a brown animal, and a label map that misses half of it."""
    rows, columns = np.indices((375, 500))
    rgb = np.stack([60 + rows // 5, 120 + rows // 4, 50 + columns // 10], axis=-1).astype(np.uint8)
    pond = ((rows - 260) / 80) ** 2 + ((columns - 150) / 120) ** 2 < 1
    animal = ((rows - 150) / 50) ** 2 + ((columns - 340) / 90) ** 2 < 1
    rgb[pond] = (90, 150, 190)
    rgb[animal] = (130, 90, 50)
    label_map = np.zeros((375, 500), np.uint8)
    label_map[pond] = 1
    label_map[animal & (columns < 340)] = 2
    return rgb, label_map


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        reason = f"needs Chromium at {CHROMIUM}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, label_studio: RunningLabelStudio) -> Iterator[Page]:
    """A page in which the first rater is logged in; requests to other machines are refused and counted."""
    context = browser.new_context(viewport=SIZES[0])
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    # Label Studio's pages name analytics, fonts and error reporting elsewhere; tests stay on this machine.
    ours = label_studio.server.url
    page.route(lambda url: not url.startswith((ours, "data:", "blob:")), lambda route: route.abort())
    page.goto(f"{ours}/user/login/")
    page.fill("input[name=email]", label_studio.emails[0])
    page.fill("input[name=password]", label_studio.password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url)
    yield page
    context.close()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where the screenshots go: MAD_SHOTS if it is set, to look at them."""
    folder = Path(os.environ.get("MAD_SHOTS", tmp_path / "shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def silent(_done: int, _total: int) -> None:
    """No progress shown."""


def open_stream(page: Page, running: RunningLabelStudio, project_id: int, hint: str) -> None:
    """Opens the label stream, reads `hint` in the instructions, closes them, and waits for the pictures."""
    page.goto(f"{running.server.url}/projects/{project_id}/data?labeling=1")
    expect(page.get_by_text(hint)).to_be_visible(timeout=TIMEOUT_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_text(hint)).to_be_hidden()


def picture_places(page: Page, count: int, width: int = 500) -> list[tuple[float, float, float]]:
    """(left, top, pixels per picture pixel) of the `count` photos on the page, from left to right."""
    big = (
        f"[...document.images].filter(i => i.naturalWidth == {width} && i.getBoundingClientRect().width > 50)"
    )
    page.wait_for_function(f"{big}.length == {count}")
    boxes = page.evaluate(
        f"{big}.map(i => i.getBoundingClientRect()).map(r => [r.left, r.top, r.width / {width}])"
    )
    return sorted((left, top, scale) for left, top, scale in boxes)


def color_at(page: Page, place: tuple[float, float, float], column: int, row: int) -> tuple[int, ...]:
    """Colour of the screen where picture pixel (row, column) is."""
    left, top, scale = place
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        pixels = np.asarray(shot.convert("RGB"))
    return tuple(pixels[int(top + row * scale), int(left + column * scale)].tolist())


def is_like(found: tuple[int, ...], wanted: tuple[int, int, int]) -> bool:
    return max(abs(f - w) for f, w in zip(found, wanted, strict=True)) < 16


def wait_for_color(
    page: Page, place: tuple[float, float, float], column: int, row: int, wanted: tuple[int, int, int]
) -> None:
    """Canvases are drawn some time after their picture has come."""
    for _ in range(60):
        found = color_at(page, place, column, row)
        if is_like(found, wanted):
            return
        page.wait_for_timeout(200)
    raise AssertionError(f"column {column}, row {row} is {found}, wanted {wanted}")


def shoot(
    page: Page, running: RunningLabelStudio, project_id: int, hint: str, file: Path, photos: int
) -> None:
    """The label stream at each of `SIZES`, opened anew: pictures take their size when a page is opened."""
    for size in reversed(SIZES):
        page.set_viewport_size(size)
        open_stream(page, running, project_id, hint)
        picture_places(page, photos)
        page.wait_for_timeout(500)  # canvases are drawn some time after their picture has come
        page.screenshot(path=file.with_name(f"{file.stem}-{size['width']}.png"))


RATING_HINT = "How well does the coloured segmentation"
BROWN = (130, 90, 50)
RED_OVER_BROWN = (168, 40, 22)  # 0.55 * (200, 0, 0) + 0.45 * BROWN


def test_a_rater_sees_photo_overlay_and_legend_and_rates_with_two_keys(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path
) -> None:
    label_studio.raters[0].submit_with_enter()
    images = [PushItem(f"img{n}", scene) for n in range(2)]
    project = push_rating(label_studio.admin, store, 1, "Rating 1", LABELS, images, report=silent)
    open_stream(page, label_studio, project.project_id, RATING_HINT)
    photo, drawn = picture_places(page, 2)
    wait_for_color(page, photo, 280, 150, BROWN)
    wait_for_color(page, drawn, 280, 150, RED_OVER_BROWN)
    assert is_like(color_at(page, drawn, 400, 150), BROWN)
    assert photo[1] == drawn[1] < 250
    assert drawn[1] + 375 * drawn[2] < 768, "the overlay does not fit on the screen"
    for text in ("dog & lead", "pond", "1 bad", "out of domain", "Segmentation to rate"):
        expect(page.get_by_text(text, exact=False).first).to_be_in_viewport()
    expect(page.get_by_text("unseen")).to_have_count(0)
    page.keyboard.press("2")
    expect(page.get_by_test_id("bottombar-submit-button")).to_be_enabled()
    page.screenshot(path=shots / "rating-chosen.png")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_visible()
    assert pull_ratings(label_studio.admin, store, 1, wanted=1).done == 1
    assert [(r.rater, r.score) for r in store.remote.ratings(1)] == [(label_studio.emails[0], 2)]


def portrait() -> tuple[RgbImage, LabelMap]:
    """The scene upright, (500, 375)."""
    rgb, label_map = scene()
    return np.ascontiguousarray(np.rot90(rgb)), np.ascontiguousarray(np.rot90(label_map))


def test_pictures_taller_than_wide_are_seen_whole(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path
) -> None:
    images = [PushItem("img0", portrait)]
    project = push_rating(label_studio.admin, store, 1, "Rating tall", LABELS, images, report=silent)
    open_stream(page, label_studio, project.project_id, RATING_HINT)
    # Pictures get their size some time after they have come.
    page.wait_for_function(
        "[...document.images].filter(i => i.getBoundingClientRect().width > 337).length == 2"
    )
    page.screenshot(path=shots / "rating-tall.png")
    for _, top, scale in picture_places(page, 2, width=375):
        assert top + 500 * scale < 720, "it reaches below the bar at the bottom"


ANSWERS = (5, 4, 3, 2, 1, 0, 1, 3, 5, 2)


def test_ten_images_are_rated_by_keyboard_alone(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path
) -> None:
    label_studio.raters[0].submit_with_enter()
    images = [PushItem(f"img{n}", scene) for n in range(len(ANSWERS))]
    project = push_rating(label_studio.admin, store, 1, "Rating 10", LABELS, images, report=silent)
    shoot(page, label_studio, project.project_id, RATING_HINT, shots / "rating.png", 2)
    given: dict[int, int] = {}
    for answer in ANSWERS:
        picture_places(page, 2)
        task_id = page.evaluate("Htx.task.id")
        page.keyboard.press(str(answer))
        expect(page.get_by_test_id("bottombar-submit-button")).to_be_enabled()
        page.keyboard.press("Enter")
        given[int(task_id)] = answer
        if len(given) < len(ANSWERS):
            page.wait_for_function(f"window.Htx?.task && Htx.task.id != {task_id}")
    expect(
        page.get_by_text("No more", exact=False).or_(page.get_by_text("no more", exact=False)).first
    ).to_be_visible()
    assert pull_ratings(label_studio.admin, store, 1, wanted=1).done == len(ANSWERS)
    tasks = store.remote.tasks(1, ProjectRole.RATING)
    found = {tasks[r.image_id]: r.score or 0 for r in store.remote.ratings(1)}
    assert found == given


def test_an_annotator_corrects_the_targets_masks_and_the_stroke_wins(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path, tmp_path: Path
) -> None:
    images = [PushItem("img0", scene)]
    project = push_segmentation(
        label_studio.admin, store, 1, "Masks 1", LABELS, images, model_version="f0", report=silent
    )
    open_stream(page, label_studio, project.project_id, "What you paint wins")
    (place,) = picture_places(page, 1)
    left, top, scale = place
    wait_for_color(page, place, 280, 150, (172, 36, 20))
    for text in ("background", "pond", "dog & lead", "unseen", "void"):
        expect(page.get_by_text(text, exact=True).first).to_be_in_viewport()
    page.screenshot(path=shots / "segmentation.png")
    page.keyboard.press("4")
    # Begun on the meadow: a stroke that begins on a mask is not taken by Label Studio.
    page.mouse.move(left + 340 * scale, top + 300 * scale)
    page.mouse.down()
    page.mouse.move(left + 200 * scale, top + 260 * scale, steps=10)
    page.mouse.up()
    wait_for_color(page, place, 320, 294, (19, 151, 13))
    page.screenshot(path=shots / "segmentation-painted.png")
    page.get_by_test_id("bottombar-submit-button").click()
    expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_visible()
    progress = pull_masks(
        label_studio.admin, store, 1, LABELS, size_of=lambda _: (375, 500), root=tmp_path / "masks"
    )
    assert progress.by_person == {label_studio.emails[0]: 1}
    found = np.asarray(Image.open(store.remote.masks(1)["img0"].path))
    painted = found == 3
    assert painted[300, 340]
    assert painted[260, 200]
    assert scene()[1][260, 200] == 1, "the stroke went over the pond"
    assert np.array_equal(found[~painted], scene()[1][~painted])
    assert painted.sum() < 0.1 * painted.size


def test_raters_are_shown_drawn_examples_before_they_begin(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path
) -> None:
    make_project(label_studio, store, 1)
    number = project_id(store)
    label_studio.admin.patch_project(number, expert_instruction=rating_help(), show_instruction=True)
    page.goto(f"{label_studio.server.url}/projects/{number}/data?labeling=1")
    expect(page.get_by_text(RATING_HINT)).to_be_in_viewport(timeout=TIMEOUT_MS)
    examples = page.locator('table[width="144"]')
    expect(examples).to_have_count(4)
    page.wait_for_timeout(500)  # the window grows when it opens
    page.screenshot(path=shots / "rating-examples.png")
    dog, meadow = (64, 48), (4, 76)
    for n, (on_dog, on_meadow) in enumerate(
        [((125, 85, 50), (120, 165, 80)), ((188, 46, 32), (120, 165, 80)), ((188, 46, 32), (120, 165, 80))]
    ):
        expect(examples.nth(n)).to_be_in_viewport(ratio=1)
        with Image.open(io.BytesIO(examples.nth(n).screenshot())) as shot:
            assert (shot.width, shot.height) in ((144, 84), (144, 85))
            pixels = np.asarray(shot.convert("RGB"))
        assert is_like(tuple(pixels[dog[1], dog[0]].tolist()), on_dog)
        assert is_like(tuple(pixels[meadow[1], meadow[0]].tolist()), on_meadow)
    for text in ("5: the dog, whole", "1: most is missing", "out of domain: not a photo"):
        expect(page.get_by_text(text, exact=False).first).to_be_in_viewport()
