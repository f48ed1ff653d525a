"""Label configurations, their signature, and the legend."""

from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.errors import LabelFormatError, SettingsError
from mad_backend.label_studio.label_config import (
    check_config,
    legend_html,
    rating_config,
    segmentation_config,
    signature,
)

LABELS = LabelSet("odd", (LabelClass("background", (0, 0, 0)), LabelClass('cat & "dog" <x>', (200, 0, 1))))


def test_rating_config_has_the_five_grades_and_the_veto_on_their_digit_keys() -> None:
    choices = ET.fromstring(rating_config()).findall(".//Choice")
    assert [(c.get("alias"), c.get("hotkey")) for c in choices] == [
        ("1", "1"),
        ("2", "2"),
        ("3", "3"),
        ("4", "4"),
        ("5", "5"),
        ("ood", "0"),
    ]


def test_segmentation_config_names_every_class_even_with_odd_letters() -> None:
    found = ET.fromstring(segmentation_config(LABELS)).findall(".//Label")
    assert [(label.get("value"), label.get("background")) for label in found] == [
        ("background", "#000000"),
        ('cat & "dog" <x>', "#c80001"),
        ("void", "#e0e0c0"),
    ]


def test_a_class_called_void_is_refused() -> None:
    with pytest.raises(SettingsError, match="void"):
        segmentation_config(LabelSet("bad", (LabelClass("void", (0, 0, 0)), LabelClass("a", (1, 1, 1)))))


def test_signature_is_of_the_meaning_not_of_the_blanks() -> None:
    config = rating_config()
    respelled = config.replace("\n", "\n\t").replace(
        'choice="single-radio" layout="inline"', "layout='inline' choice='single-radio'"
    )
    assert signature(respelled) == signature(config)
    assert signature(config.replace('alias="4"', 'alias="5"')) != signature(config)
    assert len(signature(config)) == 64


def test_signature_of_no_xml_is_refused() -> None:
    with pytest.raises(LabelFormatError, match="not XML"):
        signature("<View>")


def test_legend_escapes_names_and_shows_colours() -> None:
    html = legend_html([("cat & <dog>", "#c80001")], 375, 500)
    assert "cat &amp; &lt;dog&gt;" in html
    assert "background:#c80001" in html
    assert "background" in legend_html([], 375, 500)


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [
        (375, 500, None),
        (400, 400, "square"),
        (400, 301, "square"),
        (400, 300, "portrait"),
        (1600, 900, "narrow"),
    ],
)
def test_the_legend_tells_the_page_how_tall_the_picture_is(
    height: int, width: int, shape: str | None
) -> None:
    html = legend_html([], height, width)
    assert ("rt-" in html) == (shape is not None)
    if shape:
        assert f'class="rt-{shape}"' in html
        assert f".rt-{shape})" in rating_config()


@pytest.mark.parametrize("make", [segmentation_config, check_config])
def test_no_label_has_a_key_of_a_tool_or_of_the_verdict(make: Callable[[LabelSet], str]) -> None:
    many = LabelSet("many", tuple(LabelClass(f"class {n}", (n, n, n)) for n in range(60)))
    root = ET.fromstring(make(many))
    keys = [label.get("hotkey") for label in root.iter("Label")]
    assert keys[:12] == [*"1234567890", "q", "w"]
    given = [key for key in keys if key]
    others = {choice.get("hotkey") for choice in root.iter("Choice")} | set("behv")
    assert len(set(given)) == len(given) == 38
    assert not others & set(given)
