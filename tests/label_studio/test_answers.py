"""Any project's label configuration, and label maps drawn as it wants them: read back, they are the same maps."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mad_backend.core.labels import VOID, LabelClass, LabelMap, LabelSet
from mad_backend.errors import LabelFormatError, SettingsError
from mad_backend.label_studio.answers import (
    AnswerInterface,
    DrawingRules,
    answer_interface,
    draw,
    own_interface,
    preannotate,
)
from mad_backend.label_studio.composition import compose
from mad_backend.label_studio.label_config import check_config, segmentation_config
from mad_backend.label_studio.regions import AreaKind
from tests.label_studio.region_maker import LABELS, STREET

TRAFFIC = LabelSet(
    "traffic",
    tuple(LabelClass(n, (9 * i, i, 0)) for i, n in enumerate(("background", "car", "bus", "road", "sky"))),
)
KINDS = {"BitmaskLabels": AreaKind.BITMASK, "BrushLabels": AreaKind.BRUSH, "PolygonLabels": AreaKind.POLYGON}
ALL = DrawingRules(min_region=1, max_bytes=500_000)


def config(*labels: str, tag: str = "BrushLabels", image: str = '<Image name="photo" value="$url"/>') -> str:
    tags = "".join(f"<Label {label}/>" for label in labels)
    return f'<View>{image}<{tag} name="paint" toName="photo">{tags}</{tag}></View>'


def labels_of(*labels: str, given: dict[str, str] | None = None, of: LabelSet = TRAFFIC) -> dict[int, str]:
    return dict(answer_interface(config(*labels), of, given or {}).labels)


@pytest.mark.parametrize("labels", [LABELS, STREET])
def test_our_own_configurations_are_read_as_what_we_draw_for_them(labels: LabelSet) -> None:
    assert answer_interface(segmentation_config(labels), labels, {}) == own_interface(labels)
    assert answer_interface(check_config(labels), labels, {}) == own_interface(labels)


@pytest.mark.parametrize("tag", KINDS)
def test_control_image_and_field_are_those_of_the_project(tag: str) -> None:
    found = answer_interface(config('value="car"', tag=tag), TRAFFIC, {})
    assert found == AnswerInterface("url", "photo", "paint", KINDS[tag], {1: "car"})


def test_of_several_controls_bitmasks_go_before_brushes_before_polygons_and_the_first_before_the_next() -> (
    None
):
    def tag(kind: str, name: str, label: str = "car", image: str = "photo") -> str:
        return f'<{kind} name="{name}" toName="{image}"><Label value="{label}"/></{kind}>'

    def chosen(*tags: str) -> tuple[str, str]:
        images = '<Image name="other" value="$b"/><Image name="photo" value="$a"/>'
        found = answer_interface(f"<View>{images}{''.join(tags)}</View>", TRAFFIC, {})
        return found.control, found.field

    polygon, brush, bitmask = (
        tag(kind, kind[0]) for kind in ("PolygonLabels", "BrushLabels", "BitmaskLabels")
    )
    assert chosen(polygon, brush, bitmask) == ("B", "a")
    assert chosen(polygon, brush) == ("B", "a")
    assert chosen(polygon, tag("RectangleLabels", "R", image="other")) == ("P", "a")
    assert chosen(tag("BrushLabels", "1", image="other"), tag("BrushLabels", "2")) == ("1", "b")
    assert chosen(tag("BrushLabels", "1", image="nowhere"), tag("BrushLabels", "2")) == ("2", "a")
    assert chosen(tag("BitmaskLabels", "1", "scratch"), polygon) == ("P", "a"), (
        "one without our classes is passed"
    )


def test_a_label_is_written_by_its_alias() -> None:
    assert labels_of('value="A car" alias="car"') == {1: "car"}
    assert labels_of('value="car" alias="c"') == {1: "c"}
    assert labels_of('value="car" alias=""') == {1: "car"}


def test_names_are_the_same_exactly_first_and_then_but_for_case_and_blanks() -> None:
    pair = LabelSet("pair", (LabelClass("background", (0, 0, 0)), LabelClass("traffic light", (1, 1, 1))))
    assert labels_of('value="Traffic_Light"', of=pair) == {1: "Traffic_Light"}
    assert labels_of('value="trafficlight"', 'value="TRAFFIC-LIGHT"', of=pair) == {1: "trafficlight"}
    assert labels_of('value="Car"', 'value="car"') == {1: "car"}
    assert labels_of('value="Car"', 'value="CAR"', 'value="tree"') == {1: "Car"}


def test_predicted_values_go_before_names_and_settings_before_both() -> None:
    assert labels_of('value="Vehicle" predicted_values="car, bus,tram"') == {1: "Vehicle", 2: "Vehicle"}
    assert labels_of('value="car"', 'value="Vehicle" predicted_values="car,bus"') == {
        1: "Vehicle",
        2: "Vehicle",
    }
    assert labels_of('value="car" predicted_values="tram,"') == {1: "car"}, (
        "as Label Studio's own backends do"
    )
    assert labels_of('value="car" predicted_values="bus"') == {2: "car"}
    given = {"car": "road", "Vehicle": "bus"}
    assert labels_of('value="car"', 'value="V" alias="Vehicle" predicted_values="sky"', given=given) == {
        2: "Vehicle",
        3: "car",
    }
    assert labels_of('value="A" alias="x"', 'value="B" predicted_values="car"', given={"A": "car"}) == {
        1: "x"
    }


def test_void_has_the_label_of_that_name_or_that_which_is_given_and_background_only_a_given_one() -> None:
    car = 'value="car"'
    assert labels_of(car, 'value="void"') == {1: "car", VOID: "void"}
    assert labels_of(car, 'value="Ignore"') == {1: "car", VOID: "Ignore"}
    assert labels_of(car, 'value="unsure"', given={"unsure": "ignore"}) == {1: "car", VOID: "unsure"}
    assert labels_of(car, 'value="background"') == {1: "car"}
    assert labels_of(car, 'value="rest" predicted_values="background"') == {0: "rest", 1: "car"}
    assert labels_of(car, 'value="background"', given={"background": "background"})[0] == "background"
    assert labels_of('value="cat"', 'value="void"', of=STREET) == {0: "cat"}, "unpainted is void there"


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("", "not XML"),
        ("\ud800", "not XML"),
        ("<View>", "not XML"),
        ("<a>" * 2000 + "</a>" * 2000, "nests more than 100"),
        ("<a>" + " " * 2**20 + "</a>", "1,048,583 characters"),
        ("<View/>", "nothing takes masks on an image; .* found none, images: none"),
        (config('value="car"', tag="RectangleLabels"), "found none, images: 'photo'"),
        (
            config('value="car"', image='<Image name="other" value="$url"/>'),
            "toName='photo'>, images: 'other'",
        ),
        (config('value="car"', image='<Image name="photo" valueList="$pages"/>'), "images: none"),
        (config('value="car"', image='<Image name="photo" value="https://x.org/$url"/>'), "images: none"),
        (config('value="car"', image='<Image name="photo" value="{{$url}}"/>'), "images: none"),
        (config('value="car"').replace('name="paint"', ""), "nothing takes masks"),
        (
            config('value="tree"', 'alias="hill"'),
            r"labels 'tree', 'hill' .* \(background, car, .*serve.labels",
        ),
        (config(), "there are none"),
        (
            config().replace('name="paint"', 'name="paint" value="$options"'),
            r"come with each task .*\$options",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_with_what_to_do(xml: str, reason: str) -> None:
    with pytest.raises(LabelFormatError, match=reason):
        answer_interface(xml, TRAFFIC, {})


def test_entities_neither_grow_nor_open_files() -> None:
    bomb = "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10 if i else "ha" * 1000}">' for i in range(9))
    for entities, use in ((bomb, "&x8;"), ('<!ENTITY f SYSTEM "file:///etc/passwd">', "&f;")):
        with pytest.raises(LabelFormatError, match="not XML"):
            answer_interface(f"<!DOCTYPE View [{entities}]><View>{use}</View>", TRAFFIC, {})


def test_a_given_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r'serve.labels "car=van": label set "traffic" has no class "van"'
    ):
        labels_of('value="car"', given={"car": "van"})


MAPS = arrays(
    np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 1, 2, VOID])
)


@pytest.mark.parametrize("tag", KINDS)
@settings(deadline=None, max_examples=60)
@given(MAPS)
def test_a_map_that_is_drawn_and_composed_is_the_same_map(tag: str, label_map: LabelMap) -> None:
    labels = [f'value="{name}"' for name in (*LABELS.names, "void")]
    interface = answer_interface(config(*labels, tag=tag), LABELS, {})
    regions = draw(label_map, interface, LABELS, ALL)
    composed = compose(regions, LABELS, *label_map.shape)
    assert np.array_equal(composed.label_map, label_map)
    assert len({region["id"] for region in regions}) == len(regions)
    for region in regions:
        assert (region["from_name"], region["to_name"], region["type"]) == ("paint", "photo", KINDS[tag])
    assert json.loads(json.dumps(regions)) == list(regions)


@pytest.mark.parametrize("kind", KINDS.values())
def test_classes_of_one_label_are_one_region_and_classes_without_one_stay_unpainted(kind: AreaKind) -> None:
    label_map = np.repeat(np.array([[1, 2, 3, 0, VOID]], np.uint8), 4, axis=0)
    interface = AnswerInterface("url", "photo", "paint", kind, {1: "Vehicle", 2: "Vehicle"})
    (region,) = draw(label_map, interface, TRAFFIC, ALL)
    composed = compose([region], TRAFFIC, 4, 5, names={"Vehicle": 1})
    assert composed.label_map.tolist() == [[1, 1, 0, 0, 0]] * 4
    swapped = draw(label_map, replace(interface, labels={0: "rest", VOID: "void", 3: "r"}), TRAFFIC, ALL)
    again = compose(swapped, TRAFFIC, 4, 5, names={"rest": 4, "r": 3, "void": VOID})
    assert again.label_map.tolist() == [[0, 0, 3, 4, VOID]] * 4


def test_specks_are_cleaned_of_what_is_drawn_and_not_of_what_is_told_apart_by_the_model_only() -> None:
    label_map = np.zeros((8, 8), np.uint8)
    label_map[2:4, 2:5], label_map[3, 4], label_map[6, 6] = 1, 2, 3
    interface = AnswerInterface(
        "url", "photo", "paint", AreaKind.POLYGON, {1: "Vehicle", 2: "Vehicle", 3: "road"}
    )
    (region,) = draw(label_map, interface, TRAFFIC, replace(ALL, min_region=4))
    assert region["value"]["polygonlabels"] == ["Vehicle"]
    assert compose([region], TRAFFIC, 8, 8, names={"Vehicle": 1}).label_map.sum() == 6


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("max_bytes", [2_000, 20_000])
def test_noise_stays_below_the_budget_of_every_kind(kind: AreaKind, max_bytes: int) -> None:
    noise = np.random.default_rng(0).choice(np.array([0, 1, 2, VOID], np.uint8), (120, 160))
    interface = replace(own_interface(LABELS), kind=kind)
    found = preannotate(noise, interface, LABELS, DrawingRules(1, max_bytes, 1.0))
    assert len(json.dumps(found.regions).encode()) <= max_bytes
    assert found.notes


def test_class_ids_that_the_label_set_does_not_have_are_refused() -> None:
    with pytest.raises(LabelFormatError, match=r"class ids \[7\]"):
        draw(np.full((2, 2), 7, np.uint8), own_interface(LABELS), LABELS, ALL)
