"""Smart tools of a real Label Studio in Chromium: what a click sends here, and what a person gets for it."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import ProjectRole
from mad_backend.label_studio.composition import compose
from mad_backend.settings_file import load_label_set
from tests.conftest import RunningLabelStudio
from tests.sync import test_screens
from tests.sync.clinic import LABEL_SET, Clinic, clinic, serving
from tests.sync.test_screens import scene

browser, page = test_screens.browser, test_screens.page

HOUSE, ANIMAL = 1, 6
SMART = """
<View>
  <BitmaskLabels name="mask" toName="image" smart="false">
    <Label value="house"/><Label value="animal"/><Label value="tree"/>
  </BitmaskLabels>
  <KeyPointLabels name="click" toName="image" smart="true" smartOnly="true">
    <Label value="house"/><Label value="animal"/><Label value="tree"/>
  </KeyPointLabels>
  <Image name="image" value="$image"/>
</View>
"""


@pytest.fixture
def there(tmp_path: Path, store: Any, label_studio: RunningLabelStudio) -> Clinic:
    """Two objects of class 1 and one of class 6 in the photo and in the target's map of it."""
    found = clinic(tmp_path, store, label_studio.server.url, label_studio.server.token)
    Image.fromarray(scene()[0]).save(tmp_path / "images" / "0.png")
    Image.fromarray(predicted()).save(tmp_path / "f0" / "pool" / "0.png")
    return found.with_settings(grid={"size": 513})


def predicted() -> LabelMap:
    label_map = scene()[1]
    label_map[label_map == 2] = ANIMAL
    label_map[300:340, 400:450] = HOUSE
    return label_map


@pytest.fixture
def made(there: Clinic, label_studio: RunningLabelStudio) -> Iterator[tuple[int, int]]:
    """(project, its one task), of our pool image; it goes in the end, as its backend does."""
    running = label_studio
    there.store.remote.record_tasks(1, ProjectRole.SEGMENTATION, {"pool/0": 1})
    item = there.store.remote.item_key(1, ProjectRole.SEGMENTATION, "pool/0")
    png = base64.b64encode((there.root / "images" / "0.png").read_bytes()).decode()
    project = running.admin.create_project(title="Smart", label_config=SMART).project_id
    data = {"image": f"data:image/png;base64,{png}", "item": item}
    running.admin.import_tasks(project, [{"data": data}])
    ((task, _),) = running.admin.task_data(project)
    yield project, task
    running.admin.delete_project(project)


def connect(running: RunningLabelStudio, project: int, url: str) -> int:
    body = {"project": project, "url": url, "title": "mad", "is_interactive": True}
    backend = int(running.admin.send("POST", "/api/ml/", "connecting a backend", body)["id"])
    # People begin with an empty canvas.
    running.admin.patch_project(project, show_collab_predictions=False)
    return backend


def test_clicks_propose_the_objects_under_them_and_accepted_ones_are_saved(
    there: Clinic, label_studio: RunningLabelStudio, made: tuple[int, int], page: Page
) -> None:
    project, task = made
    with serving(there) as url:
        connect(label_studio, project, url)
        page.set_viewport_size({"width": 1366, "height": 1000})
        page.goto(f"{label_studio.server.url}/projects/{project}/data?task={task}")
        page.get_by_text("Auto-Annotation").click()
        photo = "[...document.images].filter(i => i.naturalWidth == 500 && i.width > 300)"
        page.wait_for_function(f"{photo}.length == 1")
        tool = page.locator(".lsf-toolbar .lsf-tool_smart")
        tool.click()
        expect(tool).to_have_class(re.compile("lsf-tool_active"))
        left, top, scale = page.evaluate(
            f"(r => [r.left, r.top, r.width / 500])({photo}[0].getBoundingClientRect())"
        )
        label = page.locator(".lsf-label", has_text="tree").last

        def click(column: int, row: int) -> None:
            label.click()  # Label Studio lets go of a label after each mark
            expect(label).to_have_class(re.compile("lsf-label_selected"))
            with page.expect_response("**/interactive-annotating", timeout=20_000):
                page.mouse.click(left + column * scale, top + row * scale)

        click(150, 260)
        click(425, 320)
        click(300, 150)
        page.keyboard.down("Alt")
        click(310, 160)
        page.keyboard.up("Alt")
        expect(page.get_by_text("1 suggestions")).to_be_visible()
        page.get_by_test_id("bottombar-accept-suggestions-button").click()
        expect(page.get_by_text("1 suggestions")).to_be_hidden()
        page.get_by_test_id("bottombar-submit-button").click()
        expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_visible()
    (annotation,) = label_studio.admin.annotations(task)
    # Marks are gone, and the label is the target's own, whichever was chosen for the click.
    assert [(r["type"], r["value"]["bitmasklabels"]) for r in annotation.result] == [
        ("bitmasklabels", ["house"])
    ]
    found = compose(annotation.result, load_label_set(LABEL_SET), 375, 500).label_map
    np.testing.assert_array_equal(found, np.where(predicted() == HOUSE, np.uint8(HOUSE), np.uint8(0)))


def test_label_studio_hands_boxes_on_and_stores_no_proposal(
    there: Clinic, label_studio: RunningLabelStudio, made: tuple[int, int]
) -> None:
    project, task = made
    box = {
        "type": "rectanglelabels",
        "to_name": "image",
        "value": {"x": 50, "y": 20, "width": 40, "height": 40, "rectanglelabels": ["tree"]},
    }
    with serving(there) as url:
        backend = connect(label_studio, project, url)
        path = f"/api/ml/{backend}/interactive-annotating"

        def ask(result: Any) -> Any:
            return label_studio.admin.send(
                "POST", path, "a box", {"task": task, "context": {"result": result}}
            )

        data = ask([box])["data"]
        assert data["model_version"] == "scenes@0"
        (region,) = data["result"]
        assert region["value"]["bitmasklabels"] == ["animal"]
        assert ask([])["data"]["result"] == []
        assert ask("no list")["data"]["result"] == []
    predictions = label_studio.admin.get("/api/predictions/", "predictions", {"task": task})
    assert not [p for p in predictions if len(p["result"]) == 1]
