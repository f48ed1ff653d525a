"""The gate by numbers written down by hand."""

import pytest

from mad_backend.settings import PromotionSettings
from training.promotion import decide

GATE = PromotionSettings(max_t0_loss=0.01)


def test_gaining_on_every_set_is_promoted_with_its_numbers() -> None:
    decision = decide({"T(0)": 0.70, "T(1)": 0.20}, {"T(0)": 0.71, "T(1)": 0.30}, GATE)
    assert decision.promote
    assert decision.reason == "promoted: T(0) 0.7000 -> 0.7100, T(1) 0.2000 -> 0.3000"


def test_a_small_loss_on_t0_is_allowed() -> None:
    assert decide({"T(0)": 0.70, "T(1)": 0.2}, {"T(0)": 0.695, "T(1)": 0.3}, GATE).promote


def test_a_large_loss_on_t0_is_refused_whatever_was_gained() -> None:
    decision = decide({"T(0)": 0.70, "T(1)": 0.2}, {"T(0)": 0.68, "T(1)": 0.9}, GATE)
    assert not decision.promote
    assert decision.reason.startswith("kept: T(0) fell by 0.0200, more than 0.01 (")


def test_the_tests_count_together_and_not_one_by_one() -> None:
    before = {"T(0)": 0.7, "T(1)": 0.4, "T(2)": 0.2}
    assert decide(before, {"T(0)": 0.7, "T(1)": 0.35, "T(2)": 0.3}, GATE).promote
    decision = decide(before, {"T(0)": 0.7, "T(1)": 0.3, "T(2)": 0.25}, GATE)
    assert not decision.promote
    assert decision.reason.startswith("kept: the mean over T(1), T(2) fell by 0.0250 (")


@pytest.mark.parametrize("after", [0.7, 0.72])
def test_without_any_test_set_t0_alone_decides(after: float) -> None:
    assert decide({"T(0)": 0.7}, {"T(0)": after}, GATE).promote


def test_no_change_at_all_is_promoted() -> None:
    same = {"T(0)": 0.7, "T(1)": 0.2}
    assert decide(same, dict(same), PromotionSettings(max_t0_loss=0)).promote
