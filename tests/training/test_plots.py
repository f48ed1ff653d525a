"""Plots as SVG: the bytes, the names in them, and where things stand."""

import math
import re
from xml.etree import ElementTree as ET

import matplotlib as mpl

from training.plots import Curve, Interval, curves_svg, intervals_svg

EVIL = '_<b on="x">$\\frac$&'


def curves(count: int = 2) -> list[Curve]:
    first = Curve(EVIL, [0, 10, 20], [0.2, 0.3, math.nan], [0.1, 0.2, 0.3], [0.3, 0.4, 0.5])
    return [first, *(Curve(f"curve {n}", [0, 10, 20], [0.1 * n, 0.2, 0.3]) for n in range(1, count))]


def drawn(count: int = 2) -> str:
    return curves_svg(curves(count), title=EVIL, x_label="images", y_label="mIoU", whole_x=True)


def test_the_same_numbers_give_the_same_bytes_whatever_the_users_own_settings_are() -> None:
    first = drawn()
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.facecolor": "red"}):
        assert drawn() == first
        assert mpl.rcParams["font.size"] == 30
    assert "<dc:date>" not in first


def test_an_svg_is_one_element_with_every_name_as_text() -> None:
    root = ET.fromstring(drawn())
    texts = {"".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert {EVIL, "curve 1", "images", "mIoU"} <= texts
    assert root.attrib["aria-label"] == EVIL


def test_every_curve_has_a_place_in_the_legend_outside_the_data_and_looks_of_its_own() -> None:
    text = drawn(8)
    legend = text[text.index('id="legend_1"') :]
    assert legend.count("curve ") >= 7
    assert EVIL.split("<", maxsplit=1)[0] in legend
    axes_right = max(float(x) for x in re.findall(r"L ([\d.]+) ", text[text.index('id="patch_2"') :][:400]))
    assert min(float(x) for x in re.findall(r"M ([\d.]+) ", legend)) > axes_right
    looks = set(re.findall(r'style="fill: none; stroke[^"]*"', legend))
    assert len(looks) == 8


def test_intervals_of_many_curves_stand_beside_each_other_and_those_of_few_are_bands() -> None:
    def with_intervals(count: int) -> str:
        same = [Curve(f"curve {n}", [0, 10], [0.2, 0.3], [0.1, 0.2], [0.3, 0.4]) for n in range(count)]
        return curves_svg(same, title="t", x_label="images", y_label="mIoU")

    assert with_intervals(3).count("FillBetween") == 3
    many = with_intervals(8)
    assert "FillBetween" not in many
    bars = re.findall(r'<g id="LineCollection_\d+">\s*<path d="M ([\d.]+) ', many)
    assert len(set(bars)) == 8
    assert sorted(bars, key=float) == bars


def test_an_axis_ends_where_its_values_must() -> None:
    for values, lowest in (([1.0, 1.0, 1.0], 0.9), ([0.4, 1.0, 0.8], 0.4)):
        curve = Curve("a", [1, 2, 3], values, values, values)
        text = curves_svg([curve], title="t", x_label="k", y_label="SRCC", whole_x=True, most=1.0)
        ticks = [float(x) for x in re.findall(r">(\d\.\d+)</text>", text)]
        assert (min(ticks), max(ticks)) == (lowest, 1.0)


def test_one_curve_needs_no_legend() -> None:
    assert "legend_1" not in drawn(1)


def test_intervals_of_every_panel_are_drawn_and_a_row_without_a_value_stays_empty() -> None:
    nothing = Interval("empty", math.nan, math.nan, math.nan)
    panels = {"T(0)": [Interval(EVIL, 0.5, 0.4, 0.6, is_target=False), nothing], "T(1)": [nothing]}
    text = intervals_svg(panels, title="both", x_label="mIoU", zero=True)
    root = ET.fromstring(text)
    texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"T(0)", "T(1)", EVIL, "mIoU"} <= set(texts)
    assert texts.count("empty") == 2
    assert text.count("<use ") > 0
