"""The gate: whether f(i) may take the place of the version that is served (method.md section 7)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import LabelSet
from mad_backend.core.metrics import dataset_miou, iou_per_class
from mad_backend.core.statistics import Estimate, estimate_difference, images_needed
from mad_backend.settings import PromotionSettings
from training.failure_suite import SuiteImage

SMALL = 8
"""A test set of fewer images shares a stratum with its neighbour: by itself, a set of one image would never vary."""
NAMED = 3
"""Classes and images that a check names; the report has all."""


@dataclass(frozen=True)
class PairedSet:
    """Confusion matrices (n, C, C + 1) of the served and of the new version on the same images in the same order."""

    name: str
    before: NDArray[np.int64]
    after: NDArray[np.int64]


@dataclass(frozen=True)
class ClassChange:
    """IoU of one class over all images of a comparison; NaN where a version neither has nor misses any of it."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Comparison:
    """Served and new version on some images: dataset mIoUs, their paired difference, and every class that changed."""

    name: str
    images: int
    before: float
    after: float
    difference: Estimate
    classes: tuple[ClassChange, ...]


@dataclass(frozen=True)
class Check:
    """One of the gate's conditions, with its numbers in one line."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Decision:
    """Whether `after` is to be served in the place of `before`, and everything that this was decided by."""

    before: str
    after: str
    checks: tuple[Check, ...]
    t0: Comparison
    tests: Comparison
    suite: tuple[SuiteImage, ...]

    @property
    def promote(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reason(self) -> str:
        """What was decided, each check in a line, and what ops can do."""
        failed = sum(not check.passed for check in self.checks)
        if self.promote:
            first = f"promoted: {self.after} in the place of {self.before}"
            last = "to go back: mad rollback"
        else:
            first = f"kept: {self.before} stays, {failed} of {len(self.checks)} checks failed"
            last = f"to serve it all the same: mad promote {self.after} --reason ..."
        return "\n".join((first, *(f"{'ok' if c.passed else 'FAILED'}: {c.text}" for c in self.checks), last))


def decide(
    before: str,
    after: str,
    t0: PairedSet,
    tests: Sequence[PairedSet],
    suite: Sequence[SuiteImage],
    settings: PromotionSettings,
    labels: LabelSet,
    counted: Sequence[int] | None = None,
) -> Decision:
    """Checks T(0), T(1..i) and the failure suite, all of them even if the first fails.

    `tests` are T(1..i) in order, `counted` the classes that mIoU is over. What cannot be told is not passed: f(i) is
    served only where it was shown to be fit.
    """
    on_t0 = _compared(t0.name, [t0], settings, labels, counted)
    on_tests = _compared(_span(tests), tests, settings, labels, counted)
    checks = (_t0_check(on_t0, settings), _gain_check(on_tests, settings), _suite_check(suite, settings))
    return Decision(before, after, checks, on_t0, on_tests, tuple(suite))


def _t0_check(found: Comparison, settings: PromotionSettings) -> Check:
    if not found.images:
        return Check(
            "t0", False, f"{found.name} has no labelled image, so nobody can tell what was forgotten"
        )
    change, lack = _deciding(found, settings.t0_by, settings.confidence)
    # A loss of just so much is allowed, whatever the last bit of it says.
    passed = change >= -settings.max_t0_loss - 1e-12
    wanted = f"a loss of {_points(settings.max_t0_loss)} is allowed{_by(settings.t0_by)}"
    return Check("t0", passed, f"{_numbers(found)}; {wanted}{lack}" + ("" if passed else _worst(found)))


def _gain_check(found: Comparison, settings: PromotionSettings) -> Check:
    if not found.images:
        text = "no image of any T has a label map that counts, so nobody can tell whether anything got better"
        return Check("gain", False, text)
    gain, lack = _deciding(found, settings.gain_by, settings.confidence)
    passed = gain > settings.min_gain
    wanted = f"more than {_points(settings.min_gain)} is wanted{_by(settings.gain_by)}"
    return Check("gain", passed, f"{_numbers(found)}; {wanted}{lack}" + ("" if passed else _worst(found)))


def _deciding(found: Comparison, by: str, confidence: float) -> tuple[float, str]:
    """The change in mIoU that decides, NaN where there are too few images for one, and what is to be said then."""
    if by == "estimate":
        return found.difference.value, ""
    needed = images_needed(confidence)
    if found.images < needed:
        return math.nan, f", which wants {needed} images at least"
    return found.difference.low, ""


def _suite_check(suite: Sequence[SuiteImage], settings: PromotionSettings) -> Check:
    if not suite:
        return Check("suite", True, "failure suite: empty, nothing was fixed before")
    broken = sorted((i for i in suite if i.is_broken), key=lambda i: (i.now - i.level, i.image_id))
    allowed = f", {settings.max_broken} allowed" if settings.max_broken else ""
    text = f"failure suite: {len(broken)} of {len(suite)} images broke again{allowed}"
    if broken:
        named = ", ".join(f"{i.image_id} {i.level:.2f} -> {i.now:.2f}" for i in broken[:NAMED])
        text += f": {named}" + (f", {len(broken) - NAMED} more by mad report" if len(broken) > NAMED else "")
    return Check("suite", len(broken) <= settings.max_broken, text)


def _compared(
    name: str,
    sets: Sequence[PairedSet],
    settings: PromotionSettings,
    labels: LabelSet,
    counted: Sequence[int] | None,
) -> Comparison:
    measured = [s for s in sets if len(s.before)]
    if not measured:
        nothing = Estimate(math.nan, math.nan, math.nan)
        return Comparison(name, 0, math.nan, math.nan, nothing, ())
    before = np.concatenate([s.before for s in measured])
    after = np.concatenate([s.after for s in measured])
    difference = estimate_difference(
        after,
        before,
        classes=counted,
        strata=_strata([len(s.before) for s in measured]),
        confidence=settings.confidence,
    )
    ious = [iou_per_class(m.sum(axis=0)) for m in (before, after)]
    classes = tuple(
        ClassChange(labels.names[k], float(ious[0][k]), float(ious[1][k]))
        for k in (range(len(labels)) if counted is None else counted)
        if not np.array_equal(ious[0][k], ious[1][k], equal_nan=True)
    )
    return Comparison(
        name,
        len(before),
        dataset_miou(before, counted),
        dataset_miou(after, counted),
        difference,
        classes,
    )


def _strata(sizes: Sequence[int]) -> NDArray[np.int64]:
    """(n,) which stratum each image is in: one a set, but sets follow each other into one until it is not small."""
    numbers, number, held = [], 0, 0
    for size in sizes:
        if held >= SMALL:
            number, held = number + 1, 0
        numbers.append(number)
        held += size
    if held < SMALL and number:
        numbers = [min(n, number - 1) for n in numbers]
    return np.repeat(np.array(numbers, np.int64), sizes)


def _span(tests: Sequence[PairedSet]) -> str:
    names = [s.name for s in tests if len(s.before)]
    return f"{names[0]}..{names[-1]}" if len(names) > 1 else "".join(names)


def _numbers(found: Comparison) -> str:
    change = found.difference
    interval = f"[{100 * change.low:+.2f}, {100 * change.high:+.2f}]"
    return (
        f"{found.name} {found.before:.4f} -> {found.after:.4f}, {100 * change.value:+.2f} points {interval} "
        f"on {found.images} images"
    )


def _worst(found: Comparison) -> str:
    """The classes that lost most."""
    # A class that one of the versions has nothing to do with counts as 0 in the other's loss.
    lost = [(float(np.nan_to_num(c.after) - np.nan_to_num(c.before)), c) for c in found.classes]
    worst = sorted((change, c.name, c) for change, c in lost if change < 0)[:NAMED]
    if not worst:
        return ""
    return "; lost most: " + ", ".join(
        f"{c.name} {np.nan_to_num(c.before):.2f} -> {np.nan_to_num(c.after):.2f}" for _, _, c in worst
    )


def _points(miou: float) -> str:
    return f"{100 * miou:g}"


def _by(choice: str) -> str:
    return " by the interval" if choice == "interval" else ""
