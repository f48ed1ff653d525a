"""Which images count as fixed and which as broken again, by numbers written down by hand."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from training.failure_suite import SuiteImage, Tried, drawn_miou, failure_suite

TOLERANCE = 0.2


def judged(
    failed: float, fixers: Mapping[str, float], served: float, now: float, tolerance: float = TOLERANCE
) -> SuiteImage | None:
    """One image, by its image mIoUs."""
    one = Tried(
        "S(1)",
        ["a"],
        np.array([failed]),
        {version: np.array([value]) for version, value in fixers.items()},
        np.array([served]),
        np.array([now]),
    )
    found = failure_suite([one], tolerance)
    return found[0] if found else None


def test_only_what_a_served_version_raised_by_more_than_the_tolerance_was_fixed() -> None:
    assert judged(0.3, {}, 0.3, 0.0) is None
    assert judged(0.3, {"f@1": 0.45}, 0.45, 0.0) is None
    assert judged(0.3, {"f@1": 0.55}, 0.55, 0.55) == SuiteImage(
        "a", "S(1)", 0.3, "f@1", 0.55, 0.55, 0.55, False
    )


@pytest.mark.parametrize(
    ("now", "is_broken"), [(0.9, False), (0.62, False), (0.58, True), (0.0, True), (math.nan, True)]
)
def test_an_image_breaks_by_more_than_the_tolerance_below_its_level(now: float, is_broken: bool) -> None:
    found = judged(0.3, {"f@1": 0.8}, 0.8, now)
    assert found is not None
    assert found.is_broken is is_broken


def test_small_losses_of_many_rounds_add_up_against_the_best_that_was_served() -> None:
    found = judged(0.3, {"f@1": 0.9, "f@2": 0.8}, 0.8, 0.68)
    assert found is not None
    assert (found.fixed_by, found.level, found.is_broken) == ("f@1", 0.9, True)


def test_what_ops_let_break_is_held_against_the_served_version_until_it_recovers() -> None:
    for served, now, is_broken in ((0.5, 0.5, False), (0.5, 0.2, True), (0.5, 0.9, False), (0.85, 0.5, True)):
        found = judged(0.3, {"f@1": 0.9, "f@2": served}, served, now)
        assert found is not None
        assert found.is_broken is is_broken


def test_an_image_without_a_drawn_class_is_never_in_the_suite() -> None:
    assert judged(math.nan, {"f@1": math.nan}, math.nan, math.nan) is None


def test_images_come_by_set_and_id() -> None:
    values = np.array([0.1, 0.1])
    high = np.array([0.9, 0.9])
    sets = [Tried(name, ["b", "a"], values, {"f@1": high}, high, high) for name in ("S(1)", "T(1)")]
    assert [(i.image_set, i.image_id) for i in failure_suite(sets, TOLERANCE)] == [
        ("S(1)", "a"), ("S(1)", "b"), ("T(1)", "a"), ("T(1)", "b"),
    ]  # fmt: skip


def test_a_stray_pixel_of_another_class_costs_a_pixel_and_not_a_third_of_the_image() -> None:
    clean = np.array([[[50, 0, 0, 0], [0, 50, 0, 0], [0, 0, 0, 0]]])
    stray = np.array([[[49, 0, 1, 0], [0, 50, 0, 0], [0, 0, 0, 0]]])
    missed = np.array([[[50, 0, 0, 0], [0, 0, 0, 50], [0, 0, 0, 0]]])
    assert drawn_miou(clean) == pytest.approx([1.0])
    assert drawn_miou(stray) == pytest.approx([0.99])
    assert drawn_miou(missed) == pytest.approx([0.5])
    assert drawn_miou(missed, [1]) == pytest.approx([0.0])
    assert np.isnan(drawn_miou(missed, [2])).all()
