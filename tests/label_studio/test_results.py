"""Label maps to regions, and ratings."""

from typing import Any

import numpy as np
import pytest

from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.answers import regions_of
from mad_backend.label_studio.results import rating_of
from tests.label_studio.region_maker import LABELS


def test_background_is_not_sent_and_class_ids_outside_the_set_are_refused() -> None:
    assert [r["value"]["bitmasklabels"] for r in regions_of(np.array([[0, 2]], np.uint8), LABELS)] == [
        ["dog"]
    ]
    with pytest.raises(LabelFormatError, match="7"):
        regions_of(np.array([[0, 7]], np.uint8), LABELS)


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
