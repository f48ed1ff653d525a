"""What annotators see and draw in the segmentation project, in a real Chromium."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, expect

from mad_backend.core.labels import LabelMap, LabelSet, Mask, RgbImage
from mad_backend.core.records import ProjectRole
from mad_backend.pool.images import read_label_map
from mad_backend.settings import SegmentationSettings
from mad_backend.settings_file import load_label_set
from mad_backend.store.store import Store
from sync.pull_masks import pull_masks
from sync.push import PushItem
from sync.segmentation_project import START, Starting, push_segmentation
from sync.shapes import Annotation
from tests.conftest import RunningLabelStudio
from tests.sync import test_screens
from tests.sync.test_screens import LABELS, open_stream, picture_places, scene, silent, wait_for_color

browser, page, shots = test_screens.browser, test_screens.page, test_screens.shots

VOC = load_label_set(Path(__file__).parents[2] / "configs" / "label_sets" / "voc.yaml")
BROWN, ON_BROWN = (130, 90, 50), (172, 36, 20)
"""The animal, and with the label "dog & lead" at 0.6 on it."""
WATER, ON_WATER = (90, 150, 190), (36, 114, 196)
SHOWN_HINT = "What you paint wins"


def push(running: RunningLabelStudio, store: Store, labels: LabelSet = LABELS, **options: Any) -> int:
    images = [PushItem("img0", scene)]
    project = push_segmentation(
        running.admin, store, 1, "Drawing", labels, images, model_version="f0", report=silent, **options
    )
    return project.project_id


def stroke(
    page: Page, place: tuple[float, float, float], begin: tuple[int, int], end: tuple[int, int]
) -> None:
    """Draws from one picture pixel (column, row) to another."""
    left, top, scale = place
    page.mouse.move(left + (begin[0] + 0.5) * scale, top + (begin[1] + 0.5) * scale)
    page.mouse.down()
    page.mouse.move(left + (end[0] + 0.5) * scale, top + (end[1] + 0.5) * scale, steps=12)
    page.mouse.up()


def box_of(found: Locator) -> FloatRect:
    box = found.bounding_box()
    assert box
    return box


def let_go(page: Page) -> None:
    """Of the region that was drawn in; what is not chosen is dark as long as something is."""
    nothing_chosen = page.get_by_text("View region details")
    expect(nothing_chosen).to_be_hidden()
    page.keyboard.press("u")
    expect(nothing_chosen).to_be_visible()


def submit(page: Page) -> None:
    # By the button: the key is Enter for whoever was set up as a rater, else Ctrl+Enter.
    page.get_by_test_id("bottombar-submit-button").click()
    expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_visible()


def saved(running: RunningLabelStudio, store: Store) -> Annotation:
    """The one annotation, as the server keeps it."""
    (task_id,) = store.remote.tasks(1, ProjectRole.SEGMENTATION).values()
    (annotation,) = running.admin.annotations(task_id)
    return annotation


def pulled(running: RunningLabelStudio, store: Store, root: Path) -> LabelMap:
    pull_masks(running.admin, store, 1, LABELS, size_of=lambda _: (375, 500), root=root)
    return read_label_map(Path(store.remote.masks(1)["img0"].path))


def solid(region: dict[str, Any]) -> Mask:
    """Where a saved region is at least half opaque."""
    data = base64.b64decode(region["value"]["imageDataURL"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGBA"))[..., 3] >= 128


def composed(annotation: Annotation, predicted: LabelMap) -> LabelMap:
    """Label by label as in section 3.4 of the method: as predicted first, then what was added, each in paint order."""
    layers = [(LABELS.id_of(r["value"]["bitmasklabels"][0]), solid(r)) for r in annotation.result]
    found = np.zeros(predicted.shape, np.uint8)
    for class_id, mask in layers:
        found[mask & (predicted == class_id)] = class_id
    for class_id, mask in layers:
        found[mask & (predicted != class_id)] = class_id
    return found


def rows_of(mask: Mask, column: int) -> list[int]:
    return np.flatnonzero(mask[:, column]).tolist()


def test_erased_and_painted_pixels_come_back_exactly(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path, tmp_path: Path
) -> None:
    before = scene()[1]
    open_stream(page, label_studio, push(label_studio, store), SHOWN_HINT)
    (place,) = picture_places(page, 1)
    wait_for_color(page, place, 280, 150, ON_BROWN)
    page.get_by_text("pond", exact=True).last.click()  # in the list of regions
    page.keyboard.press("e")
    stroke(page, place, (60, 260), (240, 260))
    let_go(page)
    wait_for_color(page, place, 150, 260, WATER)
    page.screenshot(path=shots / "drawing-erased.png")
    page.keyboard.press("b")
    page.keyboard.press("4")
    stroke(page, place, (480, 150), (360, 150))
    let_go(page)
    page.keyboard.press("4")
    stroke(page, place, (470, 300), (200, 300))
    let_go(page)
    wait_for_color(page, place, 440, 300, (48, 197, 37))
    page.screenshot(path=shots / "drawing-painted.png")
    submit(page)
    annotation = saved(label_studio, store)
    found = pulled(label_studio, store, tmp_path / "masks")
    assert np.array_equal(found, composed(annotation, before))
    assert [(r["value"]["bitmasklabels"][0], r["origin"]) for r in annotation.result] == [
        ("pond", "prediction-changed"),
        ("dog & lead", "prediction"),
        ("unseen", "manual"),
        ("unseen", "manual"),
    ]
    # Label Studio's eraser is 20 pixels wide at first, its brush 30; both were drawn along the middle of a row.
    erased = (before == 1) & (found != 1) & (found != 3)
    upper, lower = found == 3, found == 3
    upper[220:], lower[:220] = False, False
    for mask, columns, row, reach in (
        (erased, range(100, 200), 260, 10),
        (upper, range(380, 460), 150, 15),
        (lower, range(220, 450), 300, 15),
    ):
        for column in columns:
            assert rows_of(mask, column) == list(range(row - reach, row + reach + 1)), column
    elsewhere = ~(erased | (found == 3))
    assert np.array_equal(found[elsewhere], before[elsewhere])
    assert before[300, 220] == 1
    assert found[300, 220] == 3, "what was painted wins over the pond"


def rival(_image_id: str, target: LabelMap) -> Starting:
    """Another model sees the whole animal and no pond."""
    other = np.zeros_like(target)
    rows, columns = np.indices(target.shape)
    other[((rows - 150) / 50) ** 2 + ((columns - 340) / 90) ** 2 < 1] = 2
    return Starting(other, {"rival": other, "f0": target})


def nothing(_image_id: str, target: LabelMap) -> Starting:
    return Starting(None, {"f0": target})


def test_the_best_models_map_is_what_is_corrected_and_the_others_stand_beside_it(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path, tmp_path: Path
) -> None:
    settings = SegmentationSettings(start_from="best", further=True, min_region=1)
    project_id = push(label_studio, store, settings=settings, starting=rival)
    open_stream(page, label_studio, project_id, SHOWN_HINT)
    (place,) = picture_places(page, 1)
    wait_for_color(page, place, 400, 150, ON_BROWN)
    wait_for_color(page, place, 150, 260, WATER)
    page.get_by_text("dog & lead", exact=True).last.click()
    page.keyboard.press("e")
    stroke(page, place, (300, 150), (400, 150))
    let_go(page)
    wait_for_color(page, place, 340, 150, BROWN)
    submit(page)
    whole = rival("", scene()[1]).start
    assert whole is not None
    found = pulled(label_studio, store, tmp_path / "masks")
    assert set(np.unique(found[whole == 2])) == {0, 2}
    assert not found[whole == 0].any()
    (task_id,) = store.remote.tasks(1, ProjectRole.SEGMENTATION).values()
    task = label_studio.admin.get(f"/api/tasks/{task_id}", "reading the task")
    versions = {p["id"]: p["model_version"] for p in task["predictions"]}
    assert sorted(versions.values()) == ["f0", "rival", START]
    assert versions[saved(label_studio, store).prediction_id or 0] == START
    page.goto(f"{label_studio.server.url}/projects/{project_id}/data?task={task_id}")
    for name in (START, "rival", "f0"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    page.screenshot(path=shots / "drawing-further.png")


def test_with_none_the_canvas_is_empty_and_only_what_is_painted_counts(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path, tmp_path: Path
) -> None:
    settings = SegmentationSettings(start_from="none", further=True)
    project_id = push(label_studio, store, settings=settings, starting=nothing)
    open_stream(page, label_studio, project_id, "Paint every object")
    (place,) = picture_places(page, 1)
    wait_for_color(page, place, 280, 150, BROWN)
    expect(page.get_by_text("Labeled regions will appear here")).to_be_visible()
    expect(page.get_by_test_id("bottombar-submit-button")).to_be_disabled()
    page.screenshot(path=shots / "drawing-empty.png")
    page.keyboard.press("3")
    stroke(page, place, (270, 150), (420, 150))
    let_go(page)
    wait_for_color(page, place, 340, 150, ON_BROWN)
    submit(page)
    annotation = saved(label_studio, store)
    found = pulled(label_studio, store, tmp_path / "masks")
    assert np.array_equal(found, composed(annotation, np.zeros((375, 500), np.uint8)))
    assert set(np.unique(found)) == {0, 2}
    assert annotation.prediction_id is None


def voc_scene() -> tuple[RgbImage, LabelMap]:
    rgb, label_map = scene()
    return rgb, np.choose(np.minimum(label_map, 2), [0, 4, 12]).astype(np.uint8)


def test_twenty_two_labels_and_the_whole_photo_fit_on_the_screen(
    label_studio: RunningLabelStudio, store: Store, page: Page, shots: Path
) -> None:
    images = [PushItem("img0", voc_scene)]
    project = push_segmentation(
        label_studio.admin, store, 1, "Many", VOC, images, model_version="f0", report=silent
    )
    open_stream(page, label_studio, project.project_id, SHOWN_HINT)
    for width, height in ((1366, 768), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(500)  # until the photo has its new size
        (place,) = picture_places(page, 1)
        wait_for_color(page, place, 150, 260, (36, 60, 153))
        page.screenshot(path=shots / f"drawing-voc-{width}.png")
        slider = box_of(page.locator(".lsf-tool__controls-body"))
        for name in (*VOC.names, "void"):
            label = page.locator(".lsf-label").get_by_text(name, exact=True)
            expect(label).to_be_in_viewport(ratio=1)
            box = box_of(label)
            assert box["y"] + box["height"] < slider["y"], f"{name} is under the brush's slider"
        _, top, scale = place
        bar = box_of(page.get_by_test_id("bottombar-submit-button"))
        assert top + 375 * scale < bar["y"], "the photo reaches below the bar"
        assert scale > 1.4
    page.get_by_text("dog", exact=True).last.click()
    page.keyboard.press("e")
    page.keyboard.press("b")
    stroke(page, place, (340, 150), (350, 150))
    submit(page)
    labels = [region["value"]["bitmasklabels"] for region in saved(label_studio, store).result]
    assert labels == [["boat"], ["dog"]], "a tool's key turned the region into another class"
