"""The gate on small confusion matrices made by hand: what it lets through, what it holds, and what it says."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.metrics import dataset_miou
from mad_backend.settings import PromotionSettings
from training.failure_suite import SuiteImage
from training.promotion import Decision, PairedSet, decide

CLASSES = 3
LABELS = LabelSet(
    "toy", (LabelClass("ground", (0, 0, 0)), LabelClass("tree", (0, 9, 0)), LabelClass("car", (9, 0, 0)))
)
FIXED = SuiteImage("pool/a", "S(1)", 0.2, "f@1", 0.8, 0.8, 0.8, is_broken=False)
BROKEN = replace(FIXED, image_id="pool/b", now=0.31, is_broken=True)
Matrices = NDArray[np.int64]


def images(*hits: Sequence[float], size: int = 100) -> Matrices:
    """(n, C, C + 1): per image the share of each class's pixels that is met; what is not goes to the next class."""
    found = np.zeros((len(hits), CLASSES, CLASSES + 1), np.int64)
    for matrix, shares in zip(found, hits, strict=True):
        for k, share in enumerate(shares):
            matrix[k, k] = round(share * size)
            matrix[k, (k + 1) % CLASSES] = size - matrix[k, k]
    return found


def of_quality(seed: int, n: int, mean: float, spread: float) -> Matrices:
    return images(*np.random.default_rng(seed).normal(mean, spread, (n, CLASSES)).clip(0, 1).tolist())


T0 = PairedSet("T(0)", of_quality(1, 20, 0.8, 0.1), of_quality(1, 20, 0.8, 0.1))
GAIN = PairedSet("T(1)", of_quality(2, 20, 0.4, 0.05), of_quality(3, 20, 0.6, 0.05))


def decided(
    t0: PairedSet = T0,
    tests: Sequence[PairedSet] = (GAIN,),
    suite: Sequence[SuiteImage] = (FIXED,),
    counted: Sequence[int] | None = None,
    **given: Any,
) -> Decision:
    return decide("f@1", "f@2", t0, tests, suite, PromotionSettings(**given), LABELS, counted)


def passed(decision: Decision) -> list[bool]:
    return [check.passed for check in decision.checks]


def test_a_clear_gain_with_nothing_lost_is_promoted_and_each_check_says_its_numbers_in_one_line() -> None:
    decision = decided()
    assert decision.promote
    first, t0, gain, suite, last = decision.reason.splitlines()
    assert first == "promoted: f@2 in the place of f@1"
    same = dataset_miou(T0.before)
    assert t0 == (
        f"ok: T(0) {same:.4f} -> {same:.4f}, +0.00 points [+0.00, +0.00] on 20 images; a loss of 1 is allowed"
    )
    found = decision.tests.difference
    assert gain == (
        f"ok: T(1) {decision.tests.before:.4f} -> {decision.tests.after:.4f}, {100 * found.value:+.2f} points "
        f"[{100 * found.low:+.2f}, {100 * found.high:+.2f}] on 20 images; more than 0 is wanted by the interval"
    )
    assert suite == "ok: failure suite: 0 of 1 images broke again"
    assert last == "to go back: mad rollback"


def test_what_fails_is_kept_with_every_check_told_and_what_ops_can_do() -> None:
    worse = PairedSet("T(0)", T0.before, of_quality(1, 20, 0.7, 0.1))
    decision = decided(worse, [replace(GAIN, before=GAIN.after, after=GAIN.before)], [FIXED, BROKEN])
    assert passed(decision) == [False, False, False]
    lines = decision.reason.splitlines()
    assert lines[0] == "kept: f@1 stays, 3 of 3 checks failed"
    assert [line.startswith("FAILED: ") for line in lines[1:4]] == [True] * 3
    assert lines[3] == "FAILED: failure suite: 1 of 2 images broke again: pool/b 0.80 -> 0.31"
    assert lines[4] == "to serve it all the same: mad promote f@2 --reason ..."


def test_a_target_ruined_in_one_class_is_held_and_the_class_named() -> None:
    ruined = T0.before.copy()
    ruined[:, 2, 0] += ruined[:, 2, 2]
    ruined[:, 2, 2] = 0
    decision = decided(PairedSet("T(0)", T0.before, ruined))
    assert passed(decision) == [False, True, True]
    car = T0.before.sum(axis=0)
    iou = car[2, 2] / (car[2].sum() + car[:, 2].sum() - car[2, 2])
    assert f"; lost most: car {iou:.2f} -> 0.00, ground " in decision.checks[0].text
    changes = {c.name: (c.before, c.after) for c in decision.t0.classes}
    assert changes["car"] == (pytest.approx(iou), 0)


def test_a_loss_of_just_epsilon_is_allowed_and_a_little_more_is_not() -> None:
    before = images((0.5, 0.5, 0.5), size=1000)
    for hits, is_allowed in ((0.5, True), (0.49, False)):
        after = images((hits, hits, hits), size=1000)
        loss = dataset_miou(before) - dataset_miou(after)
        pair = PairedSet("T(0)", before, after)
        assert passed(decided(pair, max_t0_loss=loss))[0]
        assert passed(decided(pair, max_t0_loss=max(loss - 1e-6, 0)))[0] is is_allowed


def test_a_strict_team_asks_for_the_intervals_lower_bound_on_t0() -> None:
    noisy = PairedSet("T(0)", of_quality(4, 12, 0.7, 0.2), of_quality(5, 12, 0.7, 0.2))
    found = decided(noisy, max_t0_loss=0.05).t0.difference
    assert found.low < -0.05 < found.value, "the data are made so"
    assert passed(decided(noisy, max_t0_loss=0.05))[0]
    strict = decided(noisy, max_t0_loss=0.05, t0_by="interval")
    assert not passed(strict)[0]
    assert "a loss of 5 is allowed by the interval" in strict.checks[0].text


def test_a_gain_within_the_noise_is_not_promoted_unless_the_estimate_is_to_decide() -> None:
    before = of_quality(6, 20, 0.5, 0.2)
    after = before.copy()
    after[0] = images((1, 1, 1))[0]
    noise = [PairedSet("T(1)", before, after)]
    assert decided(tests=noise).tests.difference.value > 0
    assert passed(decided(tests=noise)) == [True, False, True]
    assert passed(decided(tests=noise, gain_by="estimate"))[1]
    assert not passed(decided(tests=noise, gain_by="estimate", min_gain=0.1))[1]


def test_no_change_at_all_is_not_promoted() -> None:
    same = PairedSet("T(1)", GAIN.before, GAIN.before)
    assert not decided(tests=[same]).promote
    assert not decided(tests=[same], gain_by="estimate").promote


def test_test_sets_count_together_by_their_pooled_pixels() -> None:
    lost = PairedSet("T(2)", of_quality(7, 20, 0.5, 0.05), of_quality(8, 20, 0.45, 0.05))
    decision = decided(
        tests=[GAIN, lost, replace(lost, name="T(3)", before=lost.before[:0], after=lost.after[:0])]
    )
    assert (decision.tests.name, decision.tests.images) == ("T(1)..T(2)", 40)
    pooled = [np.concatenate([GAIN.before, lost.before]), np.concatenate([GAIN.after, lost.after])]
    assert decision.tests.before == dataset_miou(pooled[0])
    assert decision.tests.difference.value == dataset_miou(pooled[1]) - dataset_miou(pooled[0])
    assert passed(decision)[1]


@pytest.mark.parametrize("by", ["interval", "estimate"])
def test_without_any_labelled_test_image_nothing_is_shown_and_nothing_promoted(by: str) -> None:
    decision = decided(tests=[], gain_by=by)
    assert passed(decision) == [True, False, True]
    assert decision.checks[1].text.startswith("no image of any T has a label map that counts")


def test_an_empty_t0_cannot_tell_what_was_forgotten() -> None:
    decision = decided(PairedSet("T(0)", T0.before[:0], T0.after[:0]))
    assert passed(decision) == [False, True, True]


@pytest.mark.parametrize(("n", "is_enough"), [(1, False), (5, False), (6, True)])
def test_too_few_images_for_an_interval_are_no_evidence_however_well_they_do(n: int, is_enough: bool) -> None:
    few = [PairedSet("T(1)", GAIN.before[:n], GAIN.after[:n])]
    decision = decided(tests=few)
    assert passed(decision)[1] is is_enough
    assert (
        "is wanted by the interval, which wants 6 images at least" in decision.checks[1].text
    ) is not is_enough
    assert passed(decided(tests=few, gain_by="estimate"))[1]


def test_a_test_set_of_one_image_varies_with_its_neighbours() -> None:
    one = PairedSet("T(2)", of_quality(9, 1, 0.1, 0), of_quality(9, 1, 0.9, 0))
    together = decided(tests=[GAIN, one]).tests.difference
    bag = PairedSet(
        "T(1)", *(np.concatenate(p) for p in ((GAIN.before, one.before), (GAIN.after, one.after)))
    )
    assert together == decided(tests=[bag]).tests.difference
    assert decided(tests=[one, GAIN]).tests.difference.low < together.value


def test_as_many_broken_images_are_let_pass_as_ops_allow_and_the_worst_are_named() -> None:
    broken = [replace(BROKEN, image_id=f"pool/{n}", now=0.5 - n / 10) for n in range(5)]
    decision = decided(suite=[FIXED, *broken], max_broken=4)
    assert not decision.promote
    assert decision.checks[2].text == (
        "failure suite: 5 of 6 images broke again, 4 allowed: pool/4 0.80 -> 0.10, pool/3 0.80 -> 0.20, "
        "pool/2 0.80 -> 0.30, 2 more by mad report"
    )
    assert decided(suite=[FIXED, *broken], max_broken=5).promote


def test_mious_are_over_the_counted_classes_only() -> None:
    decision = decided(counted=[0, 1])
    assert decision.tests.after == dataset_miou(GAIN.after, [0, 1])
    assert {c.name for c in decision.tests.classes} == {"ground", "tree"}


SHARES = st.lists(st.floats(0, 1), min_size=CLASSES, max_size=CLASSES)
PAIRS = st.lists(st.tuples(SHARES, SHARES), max_size=8)
DECIDED_BY = st.sampled_from(["estimate", "interval"])
SUITES = st.lists(st.sampled_from([FIXED, BROKEN]), max_size=4)


def pair_of(name: str, pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> PairedSet:
    return PairedSet(name, images(*(a for a, _ in pairs)), images(*(b for _, b in pairs)))


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.floats(0, 0.3))
def test_where_all_else_is_well_t0_alone_decides(t0: Any, epsilon: float) -> None:
    pair = pair_of("T(0)", t0)
    loss = dataset_miou(pair.before) - dataset_miou(pair.after)  # NaN where T(0) is empty
    assume(not math.isclose(loss, epsilon, abs_tol=1e-9))
    assert decided(pair, max_t0_loss=epsilon).promote is (loss < epsilon)


@settings(max_examples=40, deadline=None)
@given(PAIRS, PAIRS, SUITES, st.floats(0, 0.5), DECIDED_BY, DECIDED_BY, st.integers(0, 3))
def test_nothing_is_promoted_that_lost_too_much_gained_nothing_or_broke_too_many(
    t0: Any, tests: Any, suite: list[SuiteImage], epsilon: float, t0_by: str, gain_by: str, allowed: int
) -> None:
    on_t0, on_tests = pair_of("T(0)", t0), pair_of("T(1)", tests)
    decision = decided(
        on_t0, [on_tests], suite, max_t0_loss=epsilon, t0_by=t0_by, gain_by=gain_by, max_broken=allowed
    )
    lost = dataset_miou(on_t0.before) - dataset_miou(on_t0.after)
    gained = dataset_miou(on_tests.after) - dataset_miou(on_tests.before)
    assert decision.promote is all(passed(decision))
    assert not (decision.checks[0].passed and t0_by == "estimate" and not lost <= epsilon + 1e-9)
    assert not (decision.checks[1].passed and gain_by == "estimate" and not gained > 0)
    assert decision.checks[2].passed is (sum(i.is_broken for i in suite) <= allowed)
    assert len(decision.reason.splitlines()) == 5
