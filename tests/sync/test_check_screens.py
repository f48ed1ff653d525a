"""What a checker sees and does in a real Chromium, at 1366x768 and 1920x1080."""

from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from mad_backend.core.records import ErrorType, ProjectRole, Verdict
from mad_backend.label_studio.answers import regions_of
from mad_backend.pool.images import read_label_map
from mad_backend.store.store import Store
from sync.check_project import check_items, push_checks
from sync.pull_checks import CheckProgress, pull_checks
from sync.pull_masks import pull_masks
from sync.push import PushItem
from sync.segmentation_project import push_segmentation
from tests.conftest import RunningLabelStudio
from tests.sync.test_screens import (
    LABELS,
    SIZES,
    browser,
    open_stream,
    page,
    picture_places,
    scene,
    shots,
    silent,
    wait_for_color,
)

__all__ = ["browser", "page", "shots"]  # fixtures
PHOTOS = [PushItem(f"img{n}", scene) for n in range(3)]


def drawn_and_sent(running: RunningLabelStudio, store: Store, root: Path) -> int:
    """The cross-check project of three label maps: one the first rater drew, two the second."""
    push_segmentation(running.admin, store, 1, "Drawn 1", LABELS, PHOTOS, model_version="f0", report=silent)
    for image_id, task_id in store.remote.tasks(1, ProjectRole.SEGMENTATION).items():
        author = running.raters[0 if image_id == "img0" else 1]
        author.create_annotation(task_id, regions_of(scene()[1], LABELS))
    pull_masks(running.admin, store, 1, LABELS, size_of=lambda _: (375, 500), root=root)
    wanted = check_items(store, 1, PHOTOS)
    return push_checks(running.admin, store, 1, "Check 1", LABELS, wanted, report=silent).project_id


def test_a_checker_corrects_one_map_and_accepts_another_but_never_sees_their_own(
    label_studio: RunningLabelStudio,
    store: Store,
    page: Page,
    shots: Path,
    tmp_path: Path,
) -> None:
    root = tmp_path / "masks"
    project_id = drawn_and_sent(label_studio, store, root)
    for size in reversed(SIZES):
        page.set_viewport_size(size)
        open_stream(page, label_studio, project_id, "Somebody else painted this")
        (place,) = picture_places(page, 1)
        left, top, scale = place
        wait_for_color(page, place, 280, 150, (172, 36, 20))
        assert top + 375 * scale <= size["height"] - 50, "the photo does not fit above the bar"
        for text in (
            "Accept",
            "Corrected",
            "Reject",
            "boundary",
            "missing",
            "wrong class",
            "dog & lead",
            "unseen",
        ):
            expect(page.get_by_text(text, exact=False).first).to_be_in_viewport()
        page.screenshot(path=shots / f"check-{size['width']}.png")
    submit = page.get_by_test_id("bottombar-submit-button")
    page.keyboard.press("4")
    # Begun on the meadow: a stroke that begins on a mask is not taken by Label Studio.
    page.mouse.move(left + 340 * scale, top + 300 * scale)
    page.mouse.down()
    page.mouse.move(left + 200 * scale, top + 260 * scale, steps=10)
    page.mouse.up()
    wait_for_color(page, place, 320, 294, (19, 151, 13))
    for key in "mui":
        page.keyboard.press(key)
    page.screenshot(path=shots / "check-corrected.png")
    expect(submit).to_be_enabled()
    submit.click()
    expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_visible()
    expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_hidden()
    wait_for_color(page, place, 280, 150, (172, 36, 20))
    page.keyboard.press("y")
    submit.click()
    expect(page.get_by_text("Annotation saved successfully", exact=True)).to_be_visible()
    assert label_studio.raters[0].next_task(project_id) is None, "their own is left, and is not given to them"

    images = [photo.image_id for photo in PHOTOS]
    progress = pull_checks(label_studio.admin, store, 1, LABELS, images, root=root)
    assert progress == CheckProgress(2, 3, {label_studio.emails[0]: 2})
    corrected, accepted = sorted(store.checks.all(1), key=lambda check: check.verdict, reverse=True)
    assert (accepted.verdict, accepted.errors, accepted.changed_share) == (Verdict.ACCEPTED, (), 0)
    assert corrected.errors == (ErrorType.BOUNDARY, ErrorType.MISSING)
    assert {accepted.image_id, corrected.image_id} == {"img1", "img2"}
    final = read_label_map(Path(store.final_masks(1)[corrected.image_id].path))
    painted = final == 3
    assert painted[300, 340]
    assert painted[260, 200]
    assert np.array_equal(final[~painted], scene()[1][~painted])
    assert corrected.changed_share == painted.mean()
    assert painted.mean() < 0.1
