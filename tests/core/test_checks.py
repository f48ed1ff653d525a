"""Which label map counts, by what the cross-check said of it."""

from dataclasses import replace
from datetime import UTC, datetime

from mad_backend.core.checks import current_checks, dropped_images, final_masks, open_images
from mad_backend.core.records import Check, HumanMask, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGES = ["a", "b", "c", "d", "e", "f", "g"]


def mask(image_id: str, sha256: str = "new") -> HumanMask:
    return HumanMask(image_id, f"{image_id}.png", sha256, "ann", 1)


def check(image_id: str, verdict: Verdict, sha256: str = "new", path: str | None = None) -> Check:
    return Check(image_id, sha256, verdict, "bob", NOW, path=path, sha256=path and "theirs")


MASKS = {i: mask(i) for i in IMAGES}
CHECKS = [
    check("a", Verdict.ACCEPTED),
    check("b", Verdict.CORRECTED, path="b-checked.png"),
    check("c", Verdict.REJECTED, path="c-checked.png"),
    check("d", Verdict.AUTHOR, path="d-checked.png"),
    check("e", Verdict.CHECKER, path="e-checked.png"),
    check("f", Verdict.DROPPED, sha256="old"),
    check("g", Verdict.CORRECTED, sha256="old", path="g-checked.png"),
]


def test_the_checkers_map_counts_where_it_was_corrected_or_ops_took_it() -> None:
    final = final_masks(MASKS, CHECKS)
    assert {i: m.path for i, m in final.items()} == {
        "a": "a.png",
        "b": "b-checked.png",
        "c": "c.png",
        "d": "d.png",
        "e": "e-checked.png",
        "g": "g.png",
    }
    assert final["b"] == replace(MASKS["b"], path="b-checked.png", sha256="theirs")


def test_maps_without_a_check_count_as_drawn() -> None:
    assert final_masks(MASKS, []) == MASKS


def test_a_check_of_an_earlier_version_is_void_but_a_drop_stays() -> None:
    assert "g" not in current_checks(MASKS, CHECKS)
    assert dropped_images(CHECKS) == {"f"}


def test_rejected_unchecked_and_vanished_maps_are_open() -> None:
    assert open_images([*IMAGES, "gone"], MASKS, CHECKS) == ["c", "g", "gone"]


def test_only_decisions_of_ops_are_settled() -> None:
    assert {v for v in Verdict if v.is_settled} == {"author", "checker", "dropped"}
