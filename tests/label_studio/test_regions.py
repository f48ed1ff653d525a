"""Regions of other parties' ML backends: which are understood, and what each of the others is told."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.regions import areas_of

SIZE = {"original_width": 3, "original_height": 2, "image_rotation": 0}
MASK = [[False, True, True], [False, False, True]]
SDK_RLE = list(bytes.fromhex("00000018391bfc6013ffce011ff8"))


def bitmask_url() -> str:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[..., 3] = np.array(MASK) * 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def region(kind: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, **SIZE, "value": {**value, kind: ["cat"]}}


@pytest.mark.parametrize(
    "given",
    [
        region("brushlabels", format="rle", rle=SDK_RLE),
        region("bitmasklabels", imageDataURL=bitmask_url()),
        region(
            "polygonlabels",
            points=[[33.3, 0], [100, 0], [100, 100], [66.6, 100], [66.6, 50], [33.3, 50]],
            closed=True,
        ),
    ],
    ids=["brush", "bitmask", "polygon"],
)
def test_brush_bitmask_and_polygon_give_the_same_mask(given: dict[str, Any]) -> None:
    (area,) = areas_of([given])
    assert (area.label, area.height, area.width, area.place) == ("cat", 2, 3, 1)
    assert area.mask().tolist() == MASK


def test_a_rectangle_is_an_area_too() -> None:
    (area,) = areas_of([region("rectanglelabels", x=0, y=50, width=100, height=50, rotation=0)])
    assert area.mask().tolist() == [[False] * 3, [True] * 3]


def test_results_that_mark_no_pixels_are_left_out_and_places_are_kept() -> None:
    choice = {"type": "choices", "value": {"choices": ["indoor"]}}
    areas = areas_of([choice, region("brushlabels", rle=SDK_RLE), {"type": "relation"}])
    assert [area.place for area in areas] == [2]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"type": "cuboidlabels"}, "region 1 has type 'cuboidlabels'; wanted brushlabels, bitmasklabels"),
        ({"type": "keypointlabels"}, "region 1 is a keypoint"),
        ("nonsense", "region 1 has type 'None'"),
        (
            {**region("brushlabels", rle=SDK_RLE), "value": {"rle": SDK_RLE}},
            "region 1 has no label; wanted one label",
        ),
        ({"type": "brushlabels", **SIZE, "value": {"brushlabels": ["a", "b"]}}, "wanted one label"),
        ({**region("brushlabels", rle=SDK_RLE), "original_width": None}, "original_width None"),
        (
            {**region("brushlabels", rle=SDK_RLE), "original_width": 10**6, "original_height": 10**6},
            "at most",
        ),
        ({**region("brushlabels", rle=SDK_RLE), "image_rotation": 90}, "turned by 90 degrees"),
    ],
)
def test_a_region_that_is_not_understood_is_named(broken: Any, reason: str) -> None:
    with pytest.raises(LabelFormatError, match=reason):
        areas_of([broken])


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (region("brushlabels", rle=SDK_RLE[:-2]), "region 1: brush RLE is cut short"),
        (region("bitmasklabels", imageDataURL="http://x/y.png"), "region 1: wanted a PNG data URL"),
        (region("polygonlabels", points=[]), "region 1: polygon: wanted three points"),
    ],
)
def test_a_region_that_cannot_be_decoded_is_named(broken: Any, reason: str) -> None:
    (area,) = areas_of([broken])
    with pytest.raises(LabelFormatError, match=reason):
        area.mask()


def test_a_brush_mask_of_zeros_and_ones_is_refused_instead_of_read_as_empty() -> None:
    """A common slip: Label Studio shows such a mask as nothing, and so would the model's map."""
    zeros_and_ones = list(bytes.fromhex("00000018391bfc601380ce011808"))
    (area,) = areas_of([region("brushlabels", rle=zeros_and_ones)])
    with pytest.raises(LabelFormatError, match="write masks as 0 and 255"):
        area.mask()
