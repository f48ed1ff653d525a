"""Real networks and predictions on real photos, where the data is there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import VOID, LabelMap, LabelSet
from mad_backend.core.records import Frame
from mad_backend.models.registry import load_model
from mad_backend.settings import ModelSettings
from mad_backend.settings_file import load_label_set

CONFIGS = Path(__file__).parents[2] / "configs"
GRID = Grid(513)


@pytest.fixture(scope="module")
def shared_data() -> Path:
    """The data that lies beside the repository, not in it."""
    folder = Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}")
    return folder


@pytest.fixture(scope="module")
def voc() -> LabelSet:
    return load_label_set(CONFIGS / "label_sets" / "voc.yaml")


def frame_of(path: Path, image_id: str, grid: Grid) -> Frame:
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"))
    height, width = rgb.shape[:2]
    return Frame(image_id, grid.image(rgb), (height, width))


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Frame]:
    """Six photos that no model was trained on, with label maps of ESPNetv2."""
    predicted = sorted((shared_data / "models/predictions/espnetv2_2.0_384/voc").iterdir())[::40][:6]
    ids = [path.stem for path in predicted]
    return [frame_of(shared_data / f"voc/JPEGImages/{i}.jpg", f"voc/{i}", GRID) for i in ids]


def truth_of(shared_data: Path, frame: Frame) -> LabelMap:
    with Image.open(shared_data / f"voc/SegmentationClass/{frame.image_id.removeprefix('voc/')}.png") as mask:
        return GRID.label_map(np.asarray(mask))


def accuracy(maps: list[LabelMap | None], truths: list[LabelMap]) -> float:
    hits = [
        (one == truth)[truth != VOID].mean()
        for one, truth in zip(maps, truths, strict=True)
        if one is not None
    ]
    return float(np.mean(hits))


def test_an_hf_network_and_its_tflite_original_agree(
    shared_data: Path, voc: LabelSet, photos: list[Frame]
) -> None:
    models = shared_data / "models"
    lines = (models / "tflite" / "voc_classes.txt").read_text().splitlines()
    hf = ModelSettings(kind="hf", path=models / "hf" / "deeplabv3_mnv2_050", align_corners=True)
    tflite = ModelSettings(
        kind="tflite",
        path=models / "tflite" / "deeplabv3_mnv2_dm05_pascal_quant.tflite",
        own_classes=tuple(line.split(maxsplit=1)[1] for line in lines if line),
    )
    one, two = (load_model("m", settings, voc, GRID).predict(photos) for settings in (hf, tflite))
    shares = [(a == b).mean() for a, b in zip(one, two, strict=True) if a is not None and b is not None]
    assert len(shares) == len(photos)
    assert np.mean(shares) >= 0.97
    truths = [truth_of(shared_data, frame) for frame in photos]
    assert accuracy(one, truths) > 0.8
    assert accuracy(two, truths) > 0.8


def test_predictions_that_exist_only_as_files_are_a_model(
    shared_data: Path, voc: LabelSet, photos: list[Frame]
) -> None:
    folder = shared_data / "models/predictions/espnetv2_2.0_384"
    maps = load_model("m", ModelSettings(kind="folder", path=folder), voc, GRID).predict(photos)
    for label_map, frame in zip(maps, photos, strict=True):
        with Image.open(folder / f"{frame.image_id}.png") as image:
            assert np.array_equal(label_map, np.asarray(image))
    assert accuracy(maps, [truth_of(shared_data, frame) for frame in photos]) > 0.7


def test_a_street_network_of_other_classes_is_stretched_and_merged(shared_data: Path) -> None:
    camvid = load_label_set(CONFIGS / "label_sets" / "camvid.yaml")
    names = (shared_data / "models/tflite/cityscapes_classes.txt").read_text().splitlines()
    own = tuple(line.split(maxsplit=1)[1].replace(" ", "_") for line in names if line)
    same = {n: n for n in own if n in camvid.names}
    merged = dict.fromkeys(("truck", "bus", "train"), "car") | dict.fromkeys(
        ("vegetation", "terrain"), "tree"
    )
    settings = ModelSettings(
        kind="tflite",
        path=shared_data / "models/tflite/deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite",
        own_classes=own,
        classes=same | merged | {"sidewalk": "pavement", "wall": "building", "*": "ignore"},
        fit="stretch",
    )
    grid = Grid(480)
    paths = sorted((shared_data / "camvid/images").iterdir())[::200]
    frames = [frame_of(path, path.stem, grid) for path in paths]
    for label_map, path in zip(load_model("m", settings, camvid, grid).predict(frames), paths, strict=True):
        assert label_map is not None
        with Image.open(shared_data / f"camvid/masks/{path.stem}.png") as image:
            truth = np.asarray(image)
        counted = (truth != VOID) & (label_map != VOID)
        assert (label_map == truth)[counted].mean() > 0.7
