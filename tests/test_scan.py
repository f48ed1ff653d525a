"""The scan of a pool with models that are folders of label maps: interruptions, broken images, missing answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.core.metrics import JointHistogram, joint_histogram
from mad_backend.core.records import Frame, PoolImage
from mad_backend.models.folder_model import FolderModel
from mad_backend.models.registry import load_model
from mad_backend.pool.predictions import PredictionStore
from mad_backend.pool.scores import ScoreStore
from mad_backend.scan import CHUNK, scan
from mad_backend.settings import ModelSettings

LABELS = LabelSet("three", tuple(LabelClass(n, (0, 0, 0)) for n in ("background", "cat", "dog")))
GRID = Grid(16)


class Interrupted(FolderModel):
    """Answers the first chunk and is stopped in the second."""

    asked = 0

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        self.asked += 1
        if self.asked > 1:
            raise KeyboardInterrupt
        return super().predict(frames)


@dataclass(frozen=True)
class Pool:
    """Images of 20 x 10 pixels and two folders of label maps for them."""

    images: list[PoolImage]
    target: FolderModel
    competitor: FolderModel
    root: Path

    def stores(self, name: str) -> tuple[PredictionStore, ScoreStore]:
        return PredictionStore(self.root / name / "maps"), ScoreStore(self.root / name / "scores")

    def results(self, name: str) -> dict[str, JointHistogram]:
        return dict(self.stores(name)[1].read(self.target.key, self.competitor.key))


def folder_model(name: str, path: Path) -> FolderModel:
    model = load_model(name, ModelSettings(kind="folder", path=path), LABELS, GRID)
    assert isinstance(model, FolderModel)
    return model


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    rng = np.random.default_rng(0)
    images = []
    for n in range(CHUNK + 8):
        image_id = f"d/{n:03d}"
        for folder, shape, top in (("photos", (10, 20, 3), 256), ("f", (10, 20), 3), ("g", (10, 20), 3)):
            path = tmp_path / folder / f"{image_id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, top, shape, np.uint8)).save(path)
        images.append(PoolImage(image_id, str(tmp_path / "photos" / f"{image_id}.png")))
    return Pool(images, folder_model("f@0", tmp_path / "f"), folder_model("g", tmp_path / "g"), tmp_path)


def test_every_pair_gets_the_joint_histogram_of_both_maps_on_the_grid(pool: Pool) -> None:
    report = scan(pool.images, pool.target, [pool.competitor], *pool.stores("run"), GRID)
    assert (report.images, report.unreadable, report.unanswered) == (len(pool.images), {}, {})
    results = pool.results("run")
    assert set(results) == {i.image_id for i in pool.images}
    own = [np.asarray(Image.open(pool.root / m / "d/007.png")) for m in "fg"]
    assert (results["d/007"] == joint_histogram(*(GRID.label_map(m) for m in own), classes=3)).all()


def test_an_interrupted_scan_goes_on_and_ends_with_the_same_results(pool: Pool) -> None:
    scan(pool.images, pool.target, [pool.competitor], *pool.stores("whole"), GRID)
    stopped = Interrupted("f@0", pool.target.settings, LABELS, GRID)
    with pytest.raises(KeyboardInterrupt):
        scan(pool.images, stopped, [pool.competitor], *pool.stores("halves"), GRID)
    predictions, _ = pool.stores("halves")
    with predictions.open(pool.target.key) as pack:
        assert len(pack) == CHUNK
    scan(pool.images, pool.target, [pool.competitor], *pool.stores("halves"), GRID)
    whole, halves = pool.results("whole"), pool.results("halves")
    assert set(whole) == set(halves)
    assert all((whole[i] == halves[i]).all() for i in whole)


def test_a_repeated_scan_asks_no_model_and_changes_nothing(pool: Pool) -> None:
    scan(pool.images, pool.target, [pool.competitor], *pool.stores("run"), GRID)
    files = {p: p.read_bytes() for p in (pool.root / "run").rglob("*") if p.is_file()}
    tired = Interrupted("f@0", pool.target.settings, LABELS, GRID)
    scan(pool.images, tired, [pool.competitor], *pool.stores("run"), GRID)
    assert tired.asked == 0
    assert {p: p.read_bytes() for p in (pool.root / "run").rglob("*") if p.is_file()} == files


def test_new_images_are_added_to_what_is_there(pool: Pool) -> None:
    scan(pool.images[:5], pool.target, [pool.competitor], *pool.stores("run"), GRID)
    scan(pool.images, pool.target, [pool.competitor], *pool.stores("run"), GRID)
    assert set(pool.results("run")) == {i.image_id for i in pool.images}


def test_an_unreadable_image_is_counted_and_named_and_gets_no_score(pool: Pool) -> None:
    broken = Path(pool.images[3].path)
    broken.write_bytes(broken.read_bytes()[:40])
    Path(pool.images[4].path).unlink()
    report = scan(pool.images, pool.target, [pool.competitor], *pool.stores("run"), GRID)
    assert list(report.unreadable) == ["d/003", "d/004"]
    assert str(broken) in report.unreadable["d/003"]
    assert "does not exist" in report.unreadable["d/004"]
    assert set(pool.results("run")) == {i.image_id for i in pool.images} - {"d/003", "d/004"}


def test_an_image_that_one_model_has_no_answer_for_is_named_and_gets_no_score(pool: Pool) -> None:
    (pool.root / "g" / "d" / "005.png").unlink()
    competitor = folder_model("g", pool.root / "g")
    report = scan(pool.images, pool.target, [competitor], *pool.stores("run"), GRID)
    assert report.unanswered == {"g": ["d/005"]}
    _, scores = pool.stores("run")
    assert "d/005" not in scores.image_ids(pool.target.key, competitor.key)
    assert len(scores.image_ids(pool.target.key, competitor.key)) == len(pool.images) - 1


def test_progress_reaches_the_number_of_images(pool: Pool) -> None:
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    scan(pool.images, pool.target, [pool.competitor], *pool.stores("run"), GRID, note)
    assert seen == [(CHUNK, CHUNK + 8), (CHUNK + 8, CHUNK + 8)]
