"""Which object of a label map is meant by clicks and boxes, whatever else a context holds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.answers import AnswerInterface, DrawingRules
from mad_backend.label_studio.composition import compose
from mad_backend.label_studio.interactive import Click, Prompt, component_under, prompt_of, propose
from mad_backend.label_studio.regions import AreaKind

LABELS = LabelSet(
    "park",
    tuple(LabelClass(name, (10 * n, 0, 0)) for n, name in enumerate(("background", "dog", "cat", "pond"))),
)
RULES = DrawingRules(1, 500_000, 0.5)
MAP = np.array(
    [
        [1, 1, 0, 2, 2],
        [1, 0, 0, 0, 2],
        [0, 0, 1, 0, 2],
        [3, 3, 0, 1, 1],
    ],
    np.uint8,
)
"""Three dogs, of which the second and the third touch by a corner only; a cat; a pond."""


def interface(kind: AreaKind = AreaKind.BITMASK, **labels: int) -> AnswerInterface:
    names = labels or {"Dog": 1, "Cat": 2}
    return AnswerInterface("photo", "img", "m", kind, {class_id: name for name, class_id in names.items()})


def click(column: float, row: float, is_positive: bool | None = True) -> dict[str, Any]:
    """Into the middle of a pixel of `MAP`, as Label Studio sends it."""
    mark = {
        "original_width": 5,
        "original_height": 4,
        "image_rotation": 0,
        "value": {
            "x": (column + 0.5) * 20,
            "y": (row + 0.5) * 25,
            "width": 0.3,
            "labels": ["Cat"],
            "keypointlabels": ["Cat"],
        },
        "id": "j4MQJvxSrV",
        "from_name": "point",
        "to_name": "img",
        "type": "keypointlabels",
        "origin": "manual",
    }
    return mark if is_positive is None else {**mark, "is_positive": is_positive}


def box(column: int, row: int, columns: int, rows: int, **changed: Any) -> dict[str, Any]:
    value = {"x": column * 20, "y": row * 25, "width": columns * 20, "height": rows * 25, "rotation": 0}
    return {"type": "rectanglelabels", "to_name": "img", "value": value, **changed}


def prompt(*marks: Any) -> Prompt:
    found = prompt_of({"result": list(marks)}, "img")
    assert found is not None
    return found


def meant(*marks: Any, label_map: LabelMap = MAP, classes: tuple[int, ...] = (1, 2)) -> str:
    """Rows of the component: "#" where it is, its class before."""
    found = component_under(label_map, prompt(*marks), classes)
    if found is None:
        return "nothing"
    return f"{found.class_id} " + "/".join("".join(".#"[int(p)] for p in row) for row in found.mask)


def test_a_click_means_the_4_connected_component_under_it() -> None:
    assert meant(click(0, 1)) == "1 ##.../#..../...../....."
    assert meant(click(2, 2)) == "1 ...../...../..#../....."
    assert meant(click(4, 0)) == "2 ...##/....#/....#/....."
    assert meant(click(4, 3, None)) == "1 ...../...../...../...##"


def test_a_click_on_background_or_on_a_class_without_label_means_nothing() -> None:
    assert meant(click(1, 1)) == "nothing"
    assert meant(click(0, 3)) == "nothing"
    assert meant() == "nothing"


def test_clicks_are_taken_together_under_the_first_class_and_negative_ones_take_away() -> None:
    assert meant(click(0, 0), click(2, 2)) == "1 ##.../#..../..#../....."
    assert meant(click(4, 0), click(2, 2)) == "2 ...##/....#/..#.#/....."
    assert meant(click(4, 0), click(2, 2), click(4, 1, False)) == "1 ...../...../..#../....."
    assert meant(click(0, 0), click(1, 0, False)) == "nothing"
    assert meant(click(0, 0, False)) == "nothing"
    assert meant(click(0, 0), click(1, 1, False)) == "1 ##.../#..../...../....."


def test_the_edges_belong_to_the_last_pixels() -> None:
    corner = click(0, 0)
    corner["value"] |= {"x": 100, "y": 100.0}
    assert meant(corner) == "1 ...../...../...../...##"


def test_a_box_means_the_component_it_covers_most_of_of_the_class_with_most_pixels_in_it() -> None:
    assert meant(box(0, 0, 5, 2)) == "1 ##.../#..../...../....."
    assert meant(box(2, 0, 3, 4)) == "2 ...##/....#/....#/....."
    assert meant(box(1, 2, 3, 2)) == "1 ...../...../..#../....."
    assert meant(box(0, 3, 2, 1)) == "nothing"
    assert meant(box(0, 3, 2, 1), classes=(1, 3)) == "3 ...../...../...../##..."
    assert meant(box(1, 1, 1, 1)) == "nothing"
    assert meant(box(-3, -3, 1, 1)) == "nothing"


def test_other_shapes_mean_what_they_surround() -> None:
    ellipse = {"type": "ellipselabels", "value": {"x": 90, "y": 30, "radiusX": 15, "radiusY": 40}}
    points = [[0, 0], [45, 0], [0, 60]]
    polygon = {"type": "polygon", "to_name": "img", "value": {"points": points, "closed": True}}
    label = {"type": "labels", "to_name": "img", "value": {"points": points, "labels": ["Dog"]}}
    assert meant(ellipse) == "2 ...##/....#/....#/....."
    assert meant(polygon, label) == "1 ##.../#..../...../....."


def test_where_nobody_used_a_smart_tool_there_is_no_prompt_and_where_the_last_mark_was_undone_an_empty_one() -> (
    None
):
    assert prompt_of(None, "img") is None
    assert prompt_of({}, "img") is None
    assert prompt_of({"project_credentials_login": None}, "img") is None
    assert prompt_of({"result": []}, "img") == Prompt()
    assert prompt(click(0, 0) | {"to_name": "another"}) == Prompt()
    assert prompt(click(0, 0, None)).clicks == (Click(10, 12.5, True),)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ([], "came list"),
        ("x", "came str"),
        ({"result": None}, "wanted"),
        ({"result": [None]}, "mark 1 has type NoneType"),
        ({"result": [click(0, 0)] * 65}, "65 marks came; at most 64"),
        ({"result": [click(0, 0) | {"value": None}]}, "mark 1: wanted x and y"),
        ({"result": [click(0, 0) | {"value": {"x": "1", "y": 1}}]}, "mark 1: wanted x and y"),
        ({"result": [click(0, 0) | {"value": {"x": float("nan"), "y": 1}}]}, "mark 1: wanted x and y"),
        ({"result": [click(0, 0), click(5, 0)]}, "mark 2: wanted x and y"),
        ({"result": [click(0, 0) | {"image_rotation": 90}]}, "turned"),
        ({"result": [click(0, 0) | {"type": "choices"}]}, "'choices'; wanted keypoint, brush"),
        ({"result": [{"type": "rectangle", "value": 7}]}, "wanted a shape's numbers, came int"),
    ],
)
def test_contexts_that_cannot_be_read_say_so(context: Any, message: str) -> None:
    with pytest.raises(LabelFormatError, match=message):
        prompt_of(context, "img")


def test_shapes_that_cannot_be_decoded_say_so() -> None:
    for value in (
        {},
        {"x": 0, "y": 0, "width": "wide", "height": 1},
        {"x": float("inf"), "y": 0, "width": 1, "height": 1},
    ):
        with pytest.raises(LabelFormatError):
            meant({"type": "rectangle", "value": value})
    with pytest.raises(LabelFormatError, match="region 2: brush RLE"):
        meant(click(0, 0), {"type": "brushlabels", "value": {"rle": [1, 2]}})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["result", "type", "value", "x", "y", "width", "points", "to_name", "image_rotation"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
MARKS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["keypoint", "rectanglelabels", "polygon", "ellipse", "brushlabels", "labels"]
        )
        | JSON,
        "value": JSON,
        "to_name": st.just("img") | JSON,
        "is_positive": JSON,
    },
)


@given(JSON | st.fixed_dictionaries({"result": st.lists(MARKS, max_size=3)}))
def test_no_context_is_more_than_a_format_error(context: Any) -> None:
    try:
        found = prompt_of(context, "img")
        if found is not None:
            component_under(MAP, found, (1, 2))
    except LabelFormatError:
        pass


@pytest.mark.parametrize("kind", [AreaKind.BITMASK, AreaKind.BRUSH])
def test_a_proposal_is_one_region_of_the_interface_s_control(kind: AreaKind) -> None:
    big = np.kron(MAP, np.ones((10, 10), np.uint8))
    (region,) = propose(big, prompt(click(0, 0)), interface(kind), LABELS, RULES)
    assert (region["from_name"], region["to_name"], region["type"]) == ("m", "img", kind)
    assert region["value"][kind] == ["Dog"]
    found = compose([region], LABELS, 40, 50, names={"Dog": 1}).label_map
    wanted = np.zeros_like(MAP)
    wanted[0, :2] = wanted[1, 0] = 1
    np.testing.assert_array_equal(found, np.kron(wanted, np.ones((10, 10), np.uint8)))


def test_a_polygon_is_proposed_where_the_control_wants_one() -> None:
    big = np.kron(MAP, np.ones((10, 10), np.uint8))
    (region,) = propose(big, prompt(click(4, 3)), interface(AreaKind.POLYGON), LABELS, RULES)
    assert region["value"]["polygonlabels"] == ["Dog"]
    found = compose([region], LABELS, 40, 50, names={"Dog": 1}).label_map
    assert found[30:, 30:].all()
    assert found.sum() == 200


def test_the_same_object_has_the_same_id_and_others_have_others() -> None:
    big = np.kron(MAP, np.ones((10, 10), np.uint8))
    ids = [
        propose(big, prompt(click(*at)), interface(), LABELS, RULES)[0]["id"]
        for at in ((0, 0), (0, 1), (2, 2), (4, 3), (4, 0))
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_a_click_on_a_speck_means_what_surrounds_it_as_in_pre_annotations() -> None:
    label_map = np.ones((20, 20), np.uint8)
    label_map[10, 10] = 2
    mark = click(0, 0) | {"type": "keypoint", "value": {"x": 52, "y": 52}}
    (region,) = propose(label_map, prompt(mark), interface(), LABELS, DrawingRules(4, 500_000, 0))
    assert region["value"]["bitmasklabels"] == ["Dog"]
    assert (compose([region], LABELS, 20, 20, names={"Dog": 1}).label_map == 1).all()


def test_classes_of_one_label_are_one_object() -> None:
    label_map = np.array([[1, 2, 0], [1, 2, 3]], np.uint8)
    both = AnswerInterface("photo", "img", "m", AreaKind.BITMASK, {1: "Pet", 2: "Pet"})
    mark = {"type": "keypoint", "value": {"x": 40, "y": 10}}
    (region,) = propose(label_map, prompt(mark), both, LABELS, RULES)
    assert region["value"]["bitmasklabels"] == ["Pet"]
    found = compose([region], LABELS, 2, 3, names={"Pet": 1}).label_map
    np.testing.assert_array_equal(found, [[1, 1, 0], [1, 1, 0]])


def test_background_and_void_are_never_proposed_even_where_they_have_labels() -> None:
    everything = interface(Nothing=0, Dog=1, Unclear=VOID)
    label_map = np.array([[0, 0, VOID, 1]], np.uint8)
    for x in (10, 60):
        assert (
            propose(
                label_map, prompt({"type": "keypoint", "value": {"x": x, "y": 1}}), everything, LABELS, RULES
            )
            == ()
        )
    assert propose(
        label_map, prompt({"type": "keypoint", "value": {"x": 90, "y": 1}}), everything, LABELS, RULES
    )


def test_where_there_is_no_background_class_0_is_an_object() -> None:
    labels = LabelSet(
        "street", (LabelClass("road", (1, 2, 3)), LabelClass("sky", (4, 5, 6))), has_background=False
    )
    label_map = np.array([[1, 1], [0, 0]], np.uint8)
    (region,) = propose(
        label_map,
        prompt({"type": "keypoint", "value": {"x": 1, "y": 99}}),
        interface(road=0, sky=1),
        labels,
        RULES,
    )
    assert region["value"]["bitmasklabels"] == ["road"]
