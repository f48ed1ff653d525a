"""The rules by which a person's regions, of whatever kind, become one class per pixel; every odd case decided."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mad_backend.core.labels import VOID, LabelMap
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.composition import compose
from tests.label_studio.region_maker import LABELS, STREET, brush, brush_regions_of, region, shape

ROW = [255, 255, 0, 0]
LATER = [0, 255, 255, 0]
SIZES = st.tuples(st.integers(1, 12), st.integers(1, 60)) | st.tuples(st.integers(1, 60), st.integers(1, 12))


@settings(deadline=None)
@given(arrays(np.uint8, SIZES, elements=st.sampled_from([0, 1, 2, VOID])))
def test_every_label_map_survives_the_way_there_and_back(label_map: LabelMap) -> None:
    for regions in (regions_of(label_map, LABELS), brush_regions_of(label_map, LABELS)):
        composed = compose(regions, LABELS, *label_map.shape, regions)
        assert np.array_equal(composed.label_map, label_map)
        assert composed.changed_share == 0
        assert composed.notes == () or (label_map == VOID).all()


@settings(deadline=None)
@given(arrays(np.uint8, SIZES, elements=st.sampled_from([0, 1, VOID])))
def test_every_label_map_without_background_survives_too(label_map: LabelMap) -> None:
    for regions in (regions_of(label_map, STREET), brush_regions_of(label_map, STREET)):
        assert np.array_equal(compose(regions, STREET, *label_map.shape).label_map, label_map)


def test_noise_of_a_whole_photo_survives() -> None:
    label_map = np.random.default_rng(0).choice(np.array([0, 1, 2, VOID], np.uint8), (375, 500))
    for regions in (regions_of(label_map, LABELS), brush_regions_of(label_map, LABELS)):
        assert np.array_equal(compose(regions, LABELS, 375, 500).label_map, label_map)


LAYERS = st.lists(
    st.tuples(st.sampled_from(["background", "cat", "dog", "void"]), arrays(np.bool_, (2, 5))), max_size=5
)


@settings(deadline=None)
@given(LAYERS, LAYERS)
def test_every_pixel_goes_by_the_rules(layers: Any, predicted: Any) -> None:
    """The rules, said pixel by pixel."""
    ids = {"background": 0, "cat": 1, "dog": 2, "void": VOID}
    expected = np.zeros((2, 5), np.uint8)
    for y, x in np.ndindex(2, 5):
        covering = [name for name, mask in layers if mask[y, x]]
        old = {name for name, mask in predicted if mask[y, x]}
        new = [name for name in covering if name not in old]
        decisive = new or covering
        if decisive:
            expected[y, x] = VOID if "void" in decisive else ids[decisive[-1]]
    result, parent = ([brush(name, mask * 255) for name, mask in some] for some in (layers, predicted))
    composed = compose(result, LABELS, 2, 5, parent)
    assert np.array_equal(composed.label_map, expected)
    before = compose(parent, LABELS, 2, 5).label_map
    assert composed.changed_share == (before != expected).mean()


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


def test_the_changed_share_is_of_all_pixels_and_absent_without_a_prediction() -> None:
    parent = [region("cat", [ROW])]
    assert compose(parent, LABELS, 1, 4).changed_share is None
    assert compose([*parent, region("dog", [LATER])], LABELS, 1, 4, parent).changed_share == 0.5
    assert compose([region("dog", [LATER])], LABELS, 1, 4, []).changed_share == 0.5


def test_bitmasks_strokes_and_shapes_are_mixed_whatever_the_tag_is_called() -> None:
    half = {"x": 0, "y": 0, "width": 50, "height": 100, "rotation": 0}
    result = [
        region("dog", [[0, 0, 0, 255]], from_name="one"),
        brush("cat", [[0, 0, 255, 0]]),
        shape("rectanglelabels", "void", (1, 4), **half),
        shape("polygonlabels", "cat", (1, 4), points=[[0, 0], [25, 0], [25, 100], [0, 100]]),
    ]
    assert compose(result, LABELS, 1, 4).label_map.tolist() == [[VOID, VOID, 1, 2]]
    ellipse = shape("ellipselabels", "dog", (1, 4), x=50, y=50, radiusX=26, radiusY=50, rotation=0)
    assert compose([ellipse], LABELS, 1, 4).label_map.tolist() == [[0, 2, 2, 0]]


def test_a_label_of_one_tag_and_a_shape_of_another_are_one_region() -> None:
    stroke = {"format": "rle", "rle": brush(None, [ROW])["value"]["rle"]}
    drawn = {**shape("magicwand", None, (1, 4), **stroke), "id": "a"}
    labelled = {**shape("labels", "dog", (1, 4), **stroke), "id": "a"}
    composed = compose([drawn, labelled], LABELS, 1, 4)
    assert (composed.label_map.tolist(), composed.notes) == ([[2, 2, 0, 0]], ())


def test_labels_of_a_foreign_configuration_go_where_they_are_mapped() -> None:
    names = {"Kitty": 1, "Poodle": 2, "Unclear": VOID}
    result = [brush("Poodle", [ROW]), brush("Unclear", [LATER])]
    assert compose(result, LABELS, 1, 4, names=names).label_map.tolist() == [[2, VOID, VOID, 0]]
    with pytest.raises(
        LabelFormatError, match=r'region 1 has the label "cat".* known are: Kitty, Poodle, Unclear'
    ):
        compose([brush("cat", [ROW])], LABELS, 1, 4, names=names)


@pytest.mark.parametrize(
    ("odd", "note"),
    [
        (region(None, [ROW]), "region 1 has no label and was left out"),
        (brush(None, [ROW]), "region 1 has no label and was left out"),
        (shape("brushlabels", None, (1, 4), brushlabels=[]), "region 1 has no label and was left out"),
        (shape("magicwand", None, (1, 4), rle=[1]), "region 1 has no label and was left out"),
        (shape("polygon", None, (1, 4), points=[]), "region 1 has no label and was left out"),
        (shape("keypointlabels", "cat", (1, 4), x=1, y=1), "region 1 is a keypoint, which marks no pixels"),
        (region("cat", [[0] * 4]), 'region 1 ("cat") marks no pixel'),
        (brush("cat", [[0, 9, 127, 0]]), 'region 1 ("cat") is nowhere half opaque'),
        (
            shape("polygonlabels", "cat", (1, 4), points=[[120, 0], [130, 0], [130, 9]]),
            'region 1 ("cat") marks no pixel',
        ),
        (region("cat", [LATER]), "1 pixels lie in regions of cat and of dog: dog won"),
        (region("void", [[255] * 4]), "2 pixels lie in regions of dog and of void: void won"),
    ],
)
def test_what_is_odd_is_noted_and_the_rest_counts(odd: dict[str, Any], note: str) -> None:
    composed = compose([odd, region("dog", [[0, 0, 255, 255]])], LABELS, 1, 4)
    assert composed.label_map[0, 3] == (VOID if "void" in note else 2)
    assert any(said.startswith(note) for said in composed.notes), composed.notes


def test_two_regions_of_a_class_lose_a_pixel_once_and_none_to_each_other() -> None:
    result = [region("cat", [ROW]), region("cat", [ROW]), region("dog", [LATER])]
    assert compose(result, LABELS, 1, 4).notes == ("1 pixels lie in regions of cat and of dog: dog won",)


def test_regions_with_one_id_both_count_and_are_noted() -> None:
    twice = [{**region("cat", [ROW]), "id": "x"}, {**region("dog", [[0, 0, 255, 0]]), "id": "x"}]
    composed = compose(twice, LABELS, 1, 4)
    assert composed.label_map.tolist() == [[1, 1, 2, 0]]
    assert composed.notes == ("regions 1 and 2 have one id; both count",)


def test_answers_and_relations_among_regions_mark_nothing_and_are_not_worth_a_note() -> None:
    others = [
        {"type": "choices", "value": {"choices": ["easy"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
        {"type": "textarea", "value": {"text": ["?"]}},
    ]
    composed = compose([*others, region("cat", [ROW])], LABELS, 1, 4)
    assert (composed.label_map.tolist(), composed.notes) == ([[1, 1, 0, 0]], ())


def test_an_empty_result_is_unpainted_and_one_of_void_only_is_noted() -> None:
    assert compose([], LABELS, 1, 4).label_map.tolist() == [[0] * 4]
    assert compose([], STREET, 1, 4).label_map.tolist() == [[VOID] * 4]
    assert compose([region("void", [ROW])], LABELS, 1, 4).notes == ()
    assert compose([region("void", [ROW])], STREET, 1, 4).notes == ("no pixel has a class: all are void",)


def test_regions_without_label_alone_are_refused_rather_than_read_as_background() -> None:
    with pytest.raises(LabelFormatError, match=r"no region has a label .region 1 has no label"):
        compose([region(None, [ROW])], LABELS, 1, 4)


def test_a_prediction_that_cannot_be_read_is_noted_and_later_regions_win() -> None:
    both = [region("cat", [ROW]), region("dog", [LATER])]
    for parent in ([region("cow", [ROW])], [{"type": "cuboid"}], [region("cat", [[255]])]):
        composed = compose(both, LABELS, 1, 4, parent)
        assert composed.label_map.tolist() == [[1, 2, 2, 0]]
        assert composed.changed_share is None
        assert composed.notes[0].startswith("the prediction it was started from cannot be read (region 1")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (region("cow", [ROW]), 'region 2 has the label "cow".* known are: background, cat, dog, void'),
        (region("cat", [ROW[:3]]), "region 2 was drawn on an image of height 1, width 3; the image has 1, 4"),
        (region("cat", [ROW], original_width=5), "width 5"),
        (region("cat", [ROW], original_width=None), "region 2 .* original_width None"),
        (region("cat", [ROW], image_rotation=90), "region 2 is given for the image turned by 90 degrees"),
        (region("cat", [ROW], image_rotation=180), "turned by 180"),
        (region("cat", [ROW[:3]], original_width=4), "region 2: mask is"),
        (shape("bitmasklabels", "cat", (1, 4), imageDataURL="data:image/png;base64,AAAA"), "region 2: .*PNG"),
        (shape("bitmasklabels", "cat", (1, 4), imageDataURL="data:image/png;base64,%%"), "region 2: .*PNG"),
        (
            shape("bitmasklabels", "cat", (1, 4), imageDataURL="http://x/y.png"),
            "region 2: wanted a PNG data URL",
        ),
        (shape("bitmasklabels", "cat", (1, 4)), "region 2: wanted a PNG data URL, came 'None'"),
        (region("cat", [[0, 1, 1, 0]]), "region 2: the mask is nowhere more opaque than 1 of 255"),
        (brush("cat", [[0, 1, 1, 0]]), "region 2: the mask is nowhere more opaque than 1 of 255"),
        (
            shape("brushlabels", "cat", (1, 4), rle=brush("cat", [ROW])["value"]["rle"][:-3]),
            "region 2: .*cut short",
        ),
        (shape("brushlabels", "cat", (1, 4), rle="x"), "region 2: .*a list of bytes"),
        (
            shape("polygonlabels", "cat", (1, 4), points=[[1, 2], [3, 4]]),
            "region 2: polygon: wanted three points",
        ),
        (shape("ellipselabels", "cat", (1, 4), x=1), "region 2: shape: wanted 4 numbers"),
        (shape("cuboidlabels", "cat", (1, 4)), "region 2 has type 'cuboidlabels'; wanted brushlabels"),
        (shape("labels", "cat", (1, 4), start=1), "region 2 has type 'labels'"),
        (
            shape("bitmasklabels", None, (1, 4), bitmasklabels=["cat", "dog"]),
            "region 2: wanted one label .*'dog'",
        ),
        (shape("bitmasklabels", None, (1, 4), bitmasklabels="cat"), "region 2: wanted one label"),
        (shape("bitmasklabels", None, (1, 4), bitmasklabels=[7]), "region 2: wanted one label"),
        (region("cat", [ROW], value=None), "region 2: wanted one label"),
        (region("cat", [ROW], type=[]), "region 2 has type"),
        ("nonsense", "region 2 has type 'None'"),
        (None, "region 2 has type 'None'"),
    ],
)
def test_regions_that_cannot_be_read_are_refused_by_their_place(broken: Any, reason: str) -> None:
    with pytest.raises(LabelFormatError, match=reason):
        compose([region("dog", [ROW]), broken], LABELS, 1, 4)
