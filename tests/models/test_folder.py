"""Label maps that somebody already has: PNG, NPY, NPZ."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model, stored_key
from mad_backend.settings import ModelSettings
from tests.models.test_every_kind import changed

GRID = Grid(64)


def written(root: Path, name: str, own: NDArray[Any]) -> ModelSettings:
    """A folder with one map of image "a"."""
    path = root / name
    if path.suffix == ".png":
        Image.fromarray(own).save(path)
    elif path.suffix == ".npy":
        np.save(path, own)
    else:
        np.savez(path, own, np.zeros(3))
    return ModelSettings(kind="folder", path=root)


def frame_of(own: NDArray[Any]) -> Frame:
    height, width = own.shape[:2]
    return Frame("a", np.zeros((height, width, 3), np.uint8), (height, width))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i4", "u2", "i8", "u8"])
def test_ids_of_every_integer_type_are_read_and_those_of_no_class_are_void(
    three_labels: LabelSet, tmp_path: Path, suffix: str, dtype: str
) -> None:
    limits = np.iinfo(dtype)
    own = np.array([[0, 1, 2, 3], [100, limits.max, max(limits.min, -1), 2]], dtype)
    settings = written(tmp_path, f"a{suffix}", own)
    (label_map,) = load_model("g", settings, three_labels, GRID).predict([frame_of(own)])
    assert label_map is not None
    last = [VOID, VOID, VOID if limits.min else 0, 2]
    assert label_map.tolist() == [[0, 1, 2, VOID], last]


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz"])
def test_class_ids_above_255_are_mapped(three_labels: LabelSet, tmp_path: Path, suffix: str) -> None:
    own = np.array([[0, 255, 256], [299, 300, 65535]], np.uint16)
    names = tuple(f"c{n}" for n in range(300))
    settings = changed(
        written(tmp_path, f"a{suffix}", own),
        own_classes=names,
        classes={"c255": "cat", "c256": "dog", "c299": "cat", "*": "background"},
    )
    (label_map,) = load_model("g", settings, three_labels, GRID).predict([frame_of(own)])
    assert label_map is not None
    assert label_map.tolist() == [[0, 1, 2], [1, VOID, VOID]]


def test_an_image_without_a_file_has_no_answer(
    folder_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame]
) -> None:
    model = load_model("g", folder_settings, three_labels, GRID)
    stranger = Frame("s/none", frames[0].rgb, frames[0].size)
    assert model.predict([stranger, frames[0]])[0] is None


def test_a_map_of_another_size_than_its_image_is_refused(
    folder_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame]
) -> None:
    model = load_model("g", folder_settings, three_labels, GRID)
    with pytest.raises(ModelError, match=r"s/0\.png is 48 x 64 pixels, its image 99 x 98"):
        model.predict([Frame(frames[0].image_id, frames[0].rgb, (98, 99))])


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("content", [b"", b"no map", "half"])
def test_a_damaged_map_is_named(
    folder_settings: ModelSettings,
    three_labels: LabelSet,
    frames: list[Frame],
    tmp_path: Path,
    n: int,
    content: object,
) -> None:
    root = Path(shutil.copytree(folder_settings.required_path, tmp_path / "m"))
    (file,) = root.glob(f"s/{n}.*")
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:-40])
    model = load_model("g", changed(folder_settings, path=root), three_labels, GRID)
    with pytest.raises(ModelError, match=rf'model "g": .*s/{n}\.'):
        model.predict([frames[n]])


@pytest.mark.parametrize(
    ("own", "why"),
    [
        (np.zeros((4, 4), np.float32), "holds float32"),
        (np.zeros((4, 4, 3), np.int64), r"of shape \(4, 4, 3\)"),
        (np.array([[{}]], object), "cannot read"),
    ],
)
def test_arrays_of_something_else_are_refused_and_nothing_is_unpickled(
    three_labels: LabelSet, tmp_path: Path, own: NDArray[Any], why: str
) -> None:
    settings = written(tmp_path, "a.npy", own)
    with pytest.raises(ModelError, match=rf'model "g": .*{why}'):
        load_model("g", settings, three_labels, GRID).predict([frame_of(own)])


def test_colours_are_no_class_ids(three_labels: LabelSet, tmp_path: Path) -> None:
    settings = written(tmp_path, "a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ModelError, match=r"a\.png has mode RGB; wanted an index PNG"):
        load_model("g", settings, three_labels, GRID).predict([frame_of(np.zeros((4, 4)))])


def test_a_folder_without_maps_is_refused(
    folder_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no label map"):
        load_model("g", changed(folder_settings, path=tmp_path), three_labels, GRID)


def test_a_new_map_of_any_suffix_is_another_model(three_labels: LabelSet, tmp_path: Path) -> None:
    settings = written(tmp_path, "a.png", np.zeros((4, 4), np.uint8))
    keys = {stored_key("g", settings, three_labels, GRID)}
    for name in ("b.npy", "c.npz", "d.png"):
        written(tmp_path, name, np.zeros((4, 4), np.uint8))
        keys.add(stored_key("g", settings, three_labels, GRID))
    assert len(keys) == 4
