"""Label configurations for other parties' ML backends."""

import pytest

from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.backend_config import bitmask_config, read_config

TWO = '<Image name="two" value="$two"/><BrushLabels name="c" toName="two"><Label value="x"/></BrushLabels>'
IMAGE = '<Image name="img" value="$photo"/>'
BRUSH = '<BrushLabels name="b" toName="img"><Label value="cat"/><Label value="void"/></BrushLabels>'


def test_a_made_configuration_is_read_back_even_with_odd_letters() -> None:
    made = bitmask_config(["background", 'a & "b" <c>'])
    assert read_config(made.xml) == made
    assert made.variable == "image"


def test_variable_and_labels_are_found_and_void_is_no_class() -> None:
    found = read_config(f"<View>{IMAGE}{BRUSH}</View>")
    assert (found.variable, found.labels) == ("photo", ("cat",))


def test_labels_of_two_controls_count_once() -> None:
    polygons = '<PolygonLabels name="p" toName="img"><Label value="dog"/><Label value="cat"/></PolygonLabels>'
    assert read_config(f"<View>{BRUSH}{polygons}{IMAGE}</View>").labels == ("cat", "dog")


def test_an_image_that_nothing_is_drawn_on_does_not_matter() -> None:
    other = '<Image name="overview" value="$overview"/>'
    assert read_config(f"<View>{other}{IMAGE}{BRUSH}</View>").variable == "photo"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("<View>", "not XML"),
        ("<View/>", "wanted one of BrushLabels"),
        (f"<View>{BRUSH}</View>", "wanted one of"),
        (f"<View>{IMAGE}</View>", "wanted one of"),
        (f'<View>{BRUSH}<Image name="img" value="fixed.png"/></View>', "names a key of the task"),
        (f"<View>{IMAGE}{BRUSH}{TWO}</View>", "on one <Image"),
    ],
)
def test_a_configuration_that_asks_for_no_masks_of_one_image_is_refused(broken: str, reason: str) -> None:
    with pytest.raises(LabelFormatError, match=reason):
        read_config(broken)
