"""Which pixels polygons and run lengths cover, against a pixel-by-pixel computation and COCO's own encoder."""

from typing import Any

import numpy as np
import pytest

from mad_backend.core.labels import Mask
from mad_backend.errors import ImageError
from mad_backend.pool.coco_shapes import covered

HEIGHT, WIDTH = 14, 17


def whole(segmentation: Any) -> Mask:
    window, mask = covered(segmentation, HEIGHT, WIDTH, "x")
    found = np.zeros((HEIGHT, WIDTH), np.bool_)
    found[window] = mask
    return found


def is_inside(ring: list[float], x: float, y: float) -> bool:
    """A ray to the right crosses the outline an odd number of times."""
    points = list(zip(ring[::2], ring[1::2], strict=True))
    crossings = 0
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            crossings += 1
    return crossings % 2 == 1


def compressed(counts: list[int]) -> str:
    """`rleToString` of cocoapi/common/maskApi.c, line by line."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            text += chr((c | 0x20 if more else c) + 48)
    return text


def runs_of(mask: Mask) -> list[int]:
    """Lengths of runs down the columns, the first of them of pixels that are not covered."""
    runs, value = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def test_a_pixel_is_covered_if_its_centre_is_inside_of_one_of_the_polygons() -> None:
    rng = np.random.default_rng(3)
    for corners in (3, 4, 7, 12):
        # Some corners are out of the image, and some outlines cross themselves.
        rings = [(rng.random(2 * corners) * 24 - 4).round(2).tolist() for _ in range(2)]
        wanted = [
            [any(is_inside(ring, x + 0.5, y + 0.5) for ring in rings) for x in range(WIDTH)]
            for y in range(HEIGHT)
        ]
        assert whole(rings).tolist() == wanted


def test_polygons_that_share_an_edge_share_no_pixel() -> None:
    left, right = whole([[0, 0, 5.5, 0, 5.5, 9, 0, 9]]), whole([[5.5, 0, 17, 0, 17, 9, 5.5, 9]])
    assert not (left & right).any()
    assert (left | right)[:9].all()
    assert left.sum() == 9 * 5


def test_what_lies_outside_or_has_no_area_covers_nothing() -> None:
    assert not whole([]).any()
    assert not whole([[-9, -9, -2, -9, -2, -3]]).any()
    assert not whole([[40, 2, 50, 2, 50, 9]]).any()
    assert not whole([[1, 1, 9, 9]]).any()


def test_plain_and_compressed_runs_are_decoded() -> None:
    rng = np.random.default_rng(4)
    masks = [rng.random((HEIGHT, WIDTH)) < share for share in (0, 0.02, 0.5, 0.97, 1)]
    masks[2][:, 4:9] = True
    for mask in masks:
        runs = runs_of(mask)
        for counts in (runs, compressed(runs)):
            np.testing.assert_array_equal(whole({"size": [HEIGHT, WIDTH], "counts": counts}), mask)


def test_the_text_that_pycocotools_gives_for_ten_by_ten_empty_pixels_is_understood() -> None:
    assert not covered({"size": [10, 10], "counts": "T3"}, 10, 10, "x")[1].any()
    assert compressed([100]) == "T3"


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        (None, "wanted a segmentation"),
        ([[1, 2, 3]], r"wanted a polygon \[x0, y0"),
        ([["a", "b"]], "wanted a polygon"),
        ([[1, 2], 7], "wanted a polygon"),
        ([[1, 2, float("nan"), 4, 5, 6]], "wanted a polygon"),
        ([[]], "wanted a polygon"),
        (
            {"size": [17, 14], "counts": [238]},
            r"are for \(height, width\) \[17, 14\], the image has \[14, 17\]",
        ),
        ({"size": [14, 17], "counts": [237]}, "do not add up to 238 pixels"),
        ({"size": [14, 17], "counts": [240, -2]}, "do not add up"),
        ({"size": [14, 17], "counts": [2**62, 2**62, 2**62, 2**62, 238]}, "do not add up"),
        ({"size": [14, 17], "counts": [[1]]}, "do not add up"),
        ({"size": [14, 17], "counts": "\u00e9"}, "damaged"),
        ({"size": [14, 17], "counts": "P"}, "no text of compressed run lengths"),
        ({"size": [14, 17], "counts": ""}, "no text of compressed run lengths"),
        ({"size": [14, 17], "counts": "T" * 13 + "3"}, "more than 60 bits"),
        ({"size": [14, 17], "counts": "T3"}, "do not add up"),
        ({"size": [14, 17]}, "damaged"),
    ],
)
def test_a_damaged_segmentation_is_named(segmentation: Any, told: str) -> None:
    with pytest.raises(ImageError, match=f"^annotation 4: .*{told}"):
        covered(segmentation, HEIGHT, WIDTH, "annotation 4")
