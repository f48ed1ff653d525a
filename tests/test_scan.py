"""The scan of a pool: equality with plain numpy, interruptions, growing and changing pools, broken images."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.core.scores import PairScores
from mad_backend.engines.local import LocalEngine
from mad_backend.models.base import SegmentationModel
from mad_backend.models.folder_model import FolderModel
from mad_backend.scan import ScanReport, ScanStatus, scan
from tests.core.label_maps import counted
from tests.core.test_scores import dense, plain_distances
from tests.scan_pool import GRID, LABELS, READ, files_of, model, pool_of, scan_all, stores, write_pool

COUNT = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pool(tmp_path, COUNT)
    return tmp_path


def scan_with(
    root: Path, target: SegmentationModel, out: Path, seen: list[ScanStatus] | None = None
) -> ScanReport:
    competitor = model("g", root)

    def note(status: ScanStatus) -> None:
        if seen is not None:
            seen.append(ScanStatus(status.total, status.done, status.predicted, status.to_predict))

    def open_engine() -> LocalEngine:
        return LocalEngine([competitor, target], GRID, READ, 2)

    return scan(pool_of(root), target, [competitor], stores(out), open_engine, len(LABELS), 8, note, block=16)


def scores_by_id(out: Path, target: str, competitor: str) -> dict[str, tuple[PairScores, int]]:
    batches = list(stores(out).scores.read(target, competitor))
    return {i: (batch, row) for batch in batches for row, i in enumerate(batch.image_ids)}


def map_on_grid(root: Path, name: str, number: int) -> LabelMap:
    own = np.asarray(Image.open(root / name / "d" / f"{number:03d}.png"))
    if name == "photos":
        return GRID.image(own).argmax(axis=2).astype(np.uint8)
    return GRID.label_map(own)


def test_every_pair_gets_the_scores_that_plain_numpy_gives_its_maps(root: Path) -> None:
    report = scan_all(root, root / "run")
    assert (report.images, report.unreadable, report.unanswered, report.scored) == (COUNT, {}, {}, 2 * COUNT)
    assert report.added == {"f": COUNT, "g": COUNT, "rule@0": COUNT}
    target = model("rule@0", root)
    for name in ("f", "g"):
        found = scores_by_id(root / "run", target.key, model(name, root).key)
        assert set(found) == {i.image_id for i in pool_of(root)}
        for number in (0, 7, COUNT - 1):
            batch, row = found[f"d/{number:03d}"]
            pair = map_on_grid(root, "photos", number), map_on_grid(root, name, number)
            distances = batch.miou[row], batch.pixel_agreement[row]
            assert distances == pytest.approx(plain_distances(*pair, 3), abs=1e-12)
            joint = counted(*pair, 3)
            assert dense(batch.target, 3)[row].tolist() == joint.sum(1)[:3].tolist()
            assert dense(batch.competitor, 3)[row].tolist() == joint.sum(0)[:3].tolist()


class Interrupted(FolderModel):
    """Answers the first chunk and is stopped in the second."""

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        if frames[0].image_id == "d/008":
            raise KeyboardInterrupt
        return super().predict(frames)


def interrupted(root: Path) -> Interrupted:
    return Interrupted("f", model("f", root).settings, LABELS, GRID)


def test_an_interrupted_scan_goes_on_and_ends_with_the_same_bytes(root: Path) -> None:
    scan_with(root, model("f", root), root / "whole")
    with pytest.raises(KeyboardInterrupt):
        scan_with(root, interrupted(root), root / "halves")
    with stores(root / "halves").predictions.open(model("f", root).key) as pack:
        assert len(pack) == 8
    scan_with(root, model("f", root), root / "halves")
    assert files_of(root / "halves") == files_of(root / "whole")


def test_a_repeated_scan_opens_no_engine_and_changes_nothing(root: Path) -> None:
    scan_with(root, model("f", root), root / "run")
    files = files_of(root / "run")

    def no_engine() -> LocalEngine:
        raise AssertionError("nothing is missing")

    competitor = model("g", root)
    report = scan(pool_of(root), model("f", root), [competitor], stores(root / "run"), no_engine, 3, 8)
    assert (report.added, report.scored) == ({}, 0)
    assert files_of(root / "run") == files


def test_a_new_target_is_predicted_and_the_competitors_maps_are_read_back(root: Path) -> None:
    scan_with(root, model("f", root), root / "run")
    before = files_of(root / "run")
    report = scan_with(root, model("rule@1", root), root / "run")
    assert report.added == {"g": 0, "rule@1": COUNT}
    assert report.scored == COUNT
    after = files_of(root / "run")
    assert all(after[name] == content for name, content in before.items())


def test_only_new_images_of_a_growing_pool_are_scanned(root: Path) -> None:
    late = [root / "photos" / "d" / f"{n:03d}.png" for n in (3, 20, 39)]
    for path in late:
        path.rename(path.with_suffix(".later"))
    assert scan_with(root, model("f", root), root / "run").added == {"g": COUNT - 3, "f": COUNT - 3}
    for path in late:
        path.with_suffix(".later").rename(path)
    report = scan_with(root, model("f", root), root / "run")
    assert (report.added, report.scored) == ({"g": 3, "f": 3}, 3)
    found = scores_by_id(root / "run", model("f", root).key, model("g", root).key)
    assert len(found) == COUNT


def test_an_image_whose_bytes_changed_is_scanned_again_and_one_that_was_only_touched_is_not(
    root: Path,
) -> None:
    target = model("rule@0", root)
    scan_with(root, target, root / "run")
    changed, touched = (root / "photos" / "d" / f"{n:03d}.png" for n in (5, 6))
    Image.fromarray(np.full((10, 20, 3), (9, 200, 9), np.uint8)).save(changed)
    os.utime(touched, (1, 1))
    report = scan_with(root, target, root / "run")
    assert (report.added, report.scored) == ({"g": 1, "rule@0": 1}, 1)
    with stores(root / "run").predictions.open(target.key) as pack:
        assert (pack.read("d/005") == 1).all()
    found = scores_by_id(root / "run", target.key, model("g", root).key)
    assert len(found) == COUNT
    batch, row = found["d/005"]
    assert dense(batch.target, 3)[row].tolist() == [0, 8 * 16, 0]
    assert scan_with(root, target, root / "run").scored == 0


def test_images_that_left_the_pool_are_no_longer_among_the_scores(root: Path) -> None:
    scan_with(root, model("f", root), root / "run")
    gone = root / "photos" / "d" / "010.png"
    gone.rename(root / "010.png")
    scan_with(root, model("f", root), root / "run")
    pair = model("f", root).key, model("g", root).key
    assert "d/010" not in scores_by_id(root / "run", *pair)
    (root / "010.png").rename(gone)
    assert scan_with(root, model("f", root), root / "run").added == {}
    assert "d/010" in scores_by_id(root / "run", *pair)


def test_an_unreadable_image_is_counted_and_named_and_gets_no_score(root: Path) -> None:
    broken = root / "photos" / "d" / "003.png"
    broken.write_bytes(broken.read_bytes()[:40])
    pool = pool_of(root)
    (root / "photos" / "d" / "004.png").unlink()
    competitor, target = model("g", root), model("f", root)
    report = scan(
        pool,
        target,
        [competitor],
        stores(root / "run"),
        lambda: LocalEngine([competitor, target], GRID, READ, 2),
        3,
        8,
    )
    assert list(report.unreadable) == ["d/003", "d/004"]
    assert str(broken) in report.unreadable["d/003"]
    assert "does not exist" in report.unreadable["d/004"]
    found = scores_by_id(root / "run", target.key, competitor.key)
    assert set(found) == {i.image_id for i in pool} - {"d/003", "d/004"}


def test_an_image_that_one_model_has_no_answer_for_is_named_and_gets_no_score(root: Path) -> None:
    (root / "g" / "d" / "005.png").unlink()
    report = scan_with(root, model("f", root), root / "run")
    assert report.unanswered == {"g": ["d/005"]}
    found = scores_by_id(root / "run", model("f", root).key, model("g", root).key)
    assert set(found) == {i.image_id for i in pool_of(root)} - {"d/005"}


def test_progress_tells_images_speed_and_share_and_reaches_the_number_of_images(root: Path) -> None:
    seen: list[ScanStatus] = []
    scan_with(root, model("f", root), root / "run", seen)
    assert [s.done for s in seen] == [0, 8, 16, 16, 24, 32, 32, 40, 40]
    assert seen[-1].predicted == seen[-1].to_predict == COUNT
    assert seen[0].seconds_left is None
    assert seen[1].seconds_left is not None
    assert seen[-1].seconds_left == 0
    assert seen[1].images_per_s > 0


def test_the_scores_do_not_depend_on_how_the_pool_is_cut(root: Path) -> None:
    scan_all(root, root / "one", chunk=40, block=40)
    scan_all(root, root / "many", chunk=1, block=4)
    target = model("rule@0", root)
    for name in ("f", "g"):
        pair = target.key, model(name, root).key
        one, many = (scores_by_id(root / out, *pair) for out in ("one", "many"))
        assert set(one) == set(many)
        for image_id, (batch, row) in one.items():
            other, place = many[image_id]
            assert (batch.miou[row], batch.digests[row], batch.looks[row]) == (
                other.miou[place],
                other.digests[place],
                other.looks[place],
            )


def test_an_empty_pool_is_scanned_in_no_time(root: Path) -> None:
    report = scan([], model("f", root), [model("g", root)], stores(root / "run"), pytest.fail, 3)
    assert (report.images, report.scored) == (0, 0)
