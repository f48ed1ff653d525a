"""What we draw for projects of others, in a real Label Studio and a real Chromium: taken, seen, and given back."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.errors import LabelStudioError
from mad_backend.label_studio.answers import DrawingRules, answer_interface, draw
from mad_backend.label_studio.composition import compose
from tests.conftest import RunningLabelStudio
from tests.sync import test_screens
from tests.sync.test_screens import picture_places, wait_for_color

browser, page, shots = test_screens.browser, test_screens.page, test_screens.shots

FARM = LabelSet(
    "farm",
    tuple(
        LabelClass(name, (60 * i, 10, 10)) for i, name in enumerate(("background", "cow", "sheep", "pond"))
    ),
)
GREY = (128, 128, 128)
CONTROLS = {
    "BitmaskLabels": ("cow", '<Label value="A cow" alias="cow" background="#ff0000"/>'),
    "BrushLabels": ("Animal", '<Label value="Animal" predicted_values="sheep" background="#00ff00"/>'),
    "PolygonLabels": ("Pond", '<Label value="Pond" background="#0000ff"/>'),
}
ALL = DrawingRules(min_region=1, max_bytes=500_000)


def control(tag: str) -> str:
    return f'<{tag} name="{tag}" toName="photo" opacity="1">{CONTROLS[tag][1]}</{tag}>'


def farm() -> LabelMap:
    """A cow, a sheep, and a pond with an island."""
    rows, columns = np.indices((300, 500))
    label_map = np.zeros((300, 500), np.uint8)
    label_map[20:120, 30:200] = 1
    label_map[((rows - 80) / 60) ** 2 + ((columns - 370) / 90) ** 2 < 1] = 2
    pond = ((rows - 210) / 70) ** 2 + ((columns - 250) / 200) ** 2
    label_map[(pond < 1) & (pond > 0.1)] = 3
    return label_map


def regions() -> list[dict[str, Any]]:
    """One class by each control."""
    found: list[dict[str, Any]] = []
    for tag in CONTROLS:
        xml = f'<View><Image name="photo" value="$url"/>{control(tag)}</View>'
        found += draw(farm(), answer_interface(xml, FARM, {}), FARM, ALL)
    return found


def test_regions_of_all_three_kinds_are_taken_seen_and_given_back_as_they_were(
    label_studio: RunningLabelStudio, page: Page, shots: Path
) -> None:
    admin = label_studio.admin
    project = admin.create_project(
        title="Three controls",
        label_config=f'<View><Image name="photo" value="$url"/>{"".join(map(control, CONTROLS))}</View>',
        show_collab_predictions=True,
    )
    photo = io.BytesIO()
    Image.new("RGB", (500, 300), GREY).save(photo, "JPEG")
    data = {"url": admin.upload(project.project_id, {"farm.jpg": photo.getvalue()})["farm.jpg"]}
    drawn = regions()
    assert [region["value"][region["type"]] for region in drawn] == [[name] for name, _ in CONTROLS.values()]
    by_value = [{**drawn[0], "value": {**drawn[0]["value"], "bitmasklabels": ["A cow"]}}]
    with pytest.raises(LabelStudioError, match="Invalid value for control 'BitmaskLabels'"):
        admin.import_tasks(project.project_id, [{"data": data, "predictions": [{"result": by_value}]}])
    admin.import_tasks(
        project.project_id, [{"data": data, "predictions": [{"model_version": "v1", "result": drawn}]}]
    )
    admin.patch_project(project.project_id, model_version="v1")
    page.goto(f"{label_studio.server.url}/projects/{project.project_id}/data?labeling=1")
    (place,) = picture_places(page, 1)
    for column, row, color in (
        (100, 60, (204, 51, 51)),
        (370, 80, (51, 204, 51)),
        (120, 220, (0, 0, 239)),
        (250, 210, GREY),
        (480, 280, GREY),
    ):
        wait_for_color(page, place, column, row, color)
    page.screenshot(path=shots / "three-controls.png")
    page.get_by_test_id("bottombar-submit-button").click()
    expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_visible()
    (task,) = admin.tasks(project.project_id)
    (annotation,) = admin.annotations(task.task_id)
    names = {"cow": 1, "Animal": 2, "Pond": 3}
    assert np.array_equal(compose(annotation.result, FARM, 300, 500, names=names).label_map, farm())
