"""Label maps to regions and back; the rules by which a person's regions become one class per pixel."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.results import compose, rating_of, regions_of

LABELS = LabelSet(
    "pets",
    (LabelClass("background", (0, 0, 0)), LabelClass("cat", (200, 0, 0)), LabelClass("dog", (0, 200, 0))),
)
STREET = LabelSet("street", LABELS.classes[1:], has_background=False)


def region(name: str | None, alpha: Any, **changes: Any) -> dict[str, Any]:
    """A region as the browser sends it; `alpha` is (H, W) 0..255."""
    pixels = np.zeros((*np.shape(alpha), 4), np.uint8)
    pixels[..., 3] = alpha
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    value: dict[str, Any] = {
        "imageDataURL": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    }
    if name is not None:
        value["bitmasklabels"] = [name]
    height, width = np.shape(alpha)
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {
        "from_name": "mask",
        "to_name": "image",
        "type": "bitmasklabels",
        **size,
        "value": value,
        **changes,
    }


ROW = [255, 255, 0, 0]
LATER = [0, 255, 255, 0]


@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, VOID])
    )
)
def test_every_label_map_survives_the_way_there_and_back(label_map: LabelMap) -> None:
    height, width = label_map.shape
    composed = compose(regions_of(label_map, LABELS), LABELS, height, width)
    assert np.array_equal(composed.label_map, label_map)
    assert composed.notes == ()


@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, VOID])
    )
)
def test_every_label_map_without_background_survives_too(label_map: LabelMap) -> None:
    height, width = label_map.shape
    composed = compose(regions_of(label_map, STREET), STREET, height, width)
    assert np.array_equal(composed.label_map, label_map)


def test_background_is_not_sent_and_class_ids_outside_the_set_are_refused() -> None:
    assert [r["value"]["bitmasklabels"] for r in regions_of(np.array([[0, 2]], np.uint8), LABELS)] == [
        ["dog"]
    ]
    with pytest.raises(LabelFormatError, match="7"):
        regions_of(np.array([[0, 7]], np.uint8), LABELS)


def test_half_transparent_pixels_belong_to_the_region_from_128_on() -> None:
    assert compose([region("cat", [[127, 128]])], LABELS, 1, 2).label_map.tolist() == [[0, 1]]


def test_later_regions_win() -> None:
    both = [region("cat", [ROW]), region("dog", [LATER])]
    assert compose(both, LABELS, 1, 4).label_map.tolist() == [[1, 2, 2, 0]]


def test_what_a_person_adds_to_an_early_region_beats_what_was_predicted_later() -> None:
    parent = [region("cat", [ROW]), region("dog", [[0, 0, 255, 255]])]
    grown = [region("cat", [[255, 255, 255, 0]]), parent[1]]
    assert compose(grown, LABELS, 1, 4).label_map.tolist() == [[1, 1, 2, 2]]
    assert compose(grown, LABELS, 1, 4, parent).label_map.tolist() == [[1, 1, 1, 2]]


def test_an_untouched_prediction_comes_back_as_it_was() -> None:
    parent = [region("dog", [LATER]), region("cat", [ROW])]
    assert np.array_equal(
        compose(parent, LABELS, 1, 4, parent).label_map, compose(parent, LABELS, 1, 4).label_map
    )


def test_a_relabelled_region_beats_untouched_ones() -> None:
    parent = [region("cat", [ROW]), region("cat", [LATER])]
    relabelled = [region("dog", [ROW]), parent[1]]
    assert compose(relabelled, LABELS, 1, 4, parent).label_map.tolist() == [[2, 2, 1, 0]]


def test_void_wins_over_later_regions() -> None:
    both = [region("void", [ROW]), region("dog", [LATER])]
    assert compose(both, LABELS, 1, 4).label_map.tolist() == [[VOID, VOID, 2, 0]]


def test_painting_over_predicted_void_wins() -> None:
    parent = [region("void", [ROW])]
    assert compose([*parent, region("dog", [LATER])], LABELS, 1, 4, parent).label_map.tolist() == [
        [VOID, 2, 2, 0]
    ]


def test_painted_background_erases() -> None:
    both = [region("cat", [ROW]), region("background", [LATER])]
    assert compose(both, LABELS, 1, 4).label_map.tolist() == [[1, 0, 0, 0]]


def test_unpainted_pixels_are_void_where_there_is_no_background_class() -> None:
    assert compose([region("cat", [ROW])], STREET, 1, 4).label_map.tolist() == [[0, 0, VOID, VOID]]


def test_a_region_without_label_is_left_out_and_noted() -> None:
    composed = compose([region(None, [ROW]), region("dog", [LATER])], LABELS, 1, 4)
    assert composed.label_map.tolist() == [[0, 2, 2, 0]]
    assert composed.notes == ("region 1 has no label and was left out",)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (region("cow", [ROW]), "cow"),
        (region("cat", [ROW[:3]]), "width"),
        (region("cat", [ROW], original_width=5), "width 5"),
        (region("cat", [ROW], image_rotation=90), "90"),
        (region("cat", [ROW[:3]], original_width=4), "mask is"),
        (
            region(
                "cat", [ROW], value={"imageDataURL": "data:image/png;base64,AAAA", "bitmasklabels": ["cat"]}
            ),
            "PNG",
        ),
        (
            region("cat", [ROW], value={"imageDataURL": "http://x/y.png", "bitmasklabels": ["cat"]}),
            "data URL",
        ),
        (region("cat", [ROW], value={"rle": [1, 2, 3], "brushlabels": ["cat"]}), "bitmask"),
        (region("cat", [ROW], value=None), "bitmask"),
        ("nonsense", "bitmask"),
    ],
)
def test_regions_that_cannot_be_read_are_refused(broken: Any, reason: str) -> None:
    with pytest.raises(LabelFormatError, match=reason):
        compose([broken], LABELS, 1, 4)


def choice(*answers: str) -> dict[str, Any]:
    return {
        "from_name": "quality",
        "to_name": "overlay",
        "type": "choices",
        "value": {"choices": list(answers)},
    }


def test_ratings_are_read() -> None:
    assert [rating_of([choice(str(n))]) for n in range(1, 6)] == [1, 2, 3, 4, 5]
    assert rating_of([choice("ood")]) is None


@pytest.mark.parametrize(
    "result",
    [
        [],
        [choice("6")],
        [choice("4 good")],
        [choice("1", "2")],
        [choice()],
        [choice("1"), choice("2")],
        ["x"],
    ],
)
def test_anything_else_is_no_rating(result: Any) -> None:
    with pytest.raises(LabelFormatError, match="rating"):
        rating_of(result)
