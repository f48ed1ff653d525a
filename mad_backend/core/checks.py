"""From verdicts of the cross-check to the label maps that count (Sec. 4.1)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mad_backend.core.records import Check, HumanMask, Verdict


def dropped_images(checks: Iterable[Check]) -> set[str]:
    """Images that ops took out of the round, whatever is drawn on them later."""
    return {check.image_id for check in checks if check.verdict is Verdict.DROPPED}


def current_checks(masks: Mapping[str, HumanMask], checks: Iterable[Check]) -> dict[str, Check]:
    """Image id -> what became of its label map as it is drawn now; a check of an earlier version is void."""
    return {
        check.image_id: check
        for check in checks
        if check.image_id in masks and masks[check.image_id].sha256 == check.mask_sha256
    }


def open_images(
    image_ids: Iterable[str], masks: Mapping[str, HumanMask], checks: Iterable[Check]
) -> list[str]:
    """Those of `image_ids` whose label map nobody has accepted, corrected or settled yet, in their order."""
    known = list(checks)
    current, dropped = current_checks(masks, known), dropped_images(known)
    return [
        image_id
        for image_id in image_ids
        if image_id not in dropped
        and (image_id not in current or current[image_id].verdict is Verdict.REJECTED)
    ]


def final_masks(masks: Mapping[str, HumanMask], checks: Iterable[Check]) -> dict[str, HumanMask]:
    """Image id -> the label map that counts: the checker's where it was corrected, else the drawn one.

    Dropped images are not in it.
    """
    known = list(checks)
    current, dropped = current_checks(masks, known), dropped_images(known)
    return {
        image_id: _final(mask, current.get(image_id))
        for image_id, mask in masks.items()
        if image_id not in dropped
    }


def _final(mask: HumanMask, check: Check | None) -> HumanMask:
    if check is None or check.verdict not in (Verdict.CORRECTED, Verdict.CHECKER):
        return mask
    assert check.path is not None
    assert check.sha256 is not None
    return replace(mask, path=check.path, sha256=check.sha256)
