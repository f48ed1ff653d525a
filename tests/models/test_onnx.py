"""ONNX files of every layout, type and size, against numpy."""

from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelClass, LabelMap, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model, stored_key
from mad_backend.settings import ModelSettings
from tests.models.small_files import MEAN, STD, mixing, write_onnx
from tests.models.test_every_kind import changed

GRID = Grid(64)


def by_numpy(frame: Frame, classes: int = 3, *, normalised: bool = True) -> LabelMap:
    """The map that a mix of the colours gives at full resolution."""
    values = (frame.rgb - np.array(MEAN)) / STD if normalised else frame.rgb.astype(float)
    chosen: LabelMap = (values @ mixing(classes).T).argmax(2).astype(np.uint8)
    return chosen


@pytest.mark.parametrize("fit", ["pad", "keep"])
@pytest.mark.parametrize("answer", ["logits", "channels_last", "ids", "ids_with_channel"])
@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "UINT8"])
@pytest.mark.parametrize("shape", [("n", 3, "h", "w"), (None, None, None, 3)])
def test_every_layout_and_type_of_images_and_answers_is_understood(
    three_labels: LabelSet,
    frames: list[Frame],
    tmp_path: Path,
    fit: str,
    answer: str,
    dtype: str,
    shape: tuple[object, ...],
) -> None:
    path = write_onnx(tmp_path / "m.onnx", shape=shape, dtype=dtype, answer=answer, stride=1)
    settings = ModelSettings(kind="onnx", path=path, mean=MEAN, std=STD)
    maps = load_model("g", changed(settings, fit=fit), three_labels, GRID).predict(frames)
    for label_map, frame in zip(maps, frames, strict=True):
        assert label_map is not None
        expected = by_numpy(frame, normalised=dtype != "UINT8")
        assert (label_map == expected).mean() > (0.99 if dtype == "FLOAT16" else 0.9999)


@pytest.mark.parametrize("batch", [1, 2, 3, "n"])
def test_a_fixed_batch_is_filled_up_and_a_fixed_size_is_the_canvas(
    three_labels: LabelSet, frames: list[Frame], tmp_path: Path, batch: object
) -> None:
    path = write_onnx(tmp_path / "m.onnx", shape=(batch, 3, 64, 80), stride=1)
    settings = ModelSettings(kind="onnx", path=path, mean=MEAN, std=STD)
    for label_map, frame in zip(
        load_model("g", settings, three_labels, GRID).predict(frames), frames, strict=True
    ):
        assert np.array_equal(label_map, by_numpy(frame))
    with pytest.raises(ModelError, match="takes images of 64 x 80 pixels only; leave input_size out"):
        load_model("g", changed(settings, input_size=64), three_labels, GRID)
    with pytest.raises(ModelError, match="takes images of 64 x 80 pixels only; write fit: pad or stretch"):
        load_model("g", changed(settings, fit="keep"), three_labels, GRID)
    load_model("g", changed(settings, input_size=(64, 80), fit="stretch"), three_labels, GRID)


def test_more_classes_than_a_byte_counts_are_mapped(
    three_labels: LabelSet, frames: list[Frame], tmp_path: Path
) -> None:
    own = tuple(f"class {n}" for n in range(300))
    table = np.arange(300, dtype=np.uint8) % 2
    mapping = {name: ("cat" if n % 2 else "background") for n, name in enumerate(own)}
    for answer in ("logits", "ids"):
        path = write_onnx(tmp_path / f"{answer}.onnx", classes=300, stride=1, answer=answer)
        settings = ModelSettings(kind="onnx", path=path, mean=MEAN, std=STD, own_classes=own, classes=mapping)
        (label_map,) = load_model("g", settings, three_labels, GRID).predict(frames[:1])
        values = (frames[0].rgb - np.array(MEAN)) / STD
        own_ids = (values @ mixing(300).T).argmax(2)
        assert own_ids.max() > 255
        assert label_map is not None
        assert (label_map == table[own_ids]).mean() > 0.999


def test_one_output_for_two_classes_is_the_score_of_the_second(frames: list[Frame], tmp_path: Path) -> None:
    two = LabelSet("two", (LabelClass("background", (0, 0, 0)), LabelClass("cat", (1, 1, 1))))
    path = write_onnx(tmp_path / "m.onnx", classes=1, stride=1)
    settings = ModelSettings(kind="onnx", path=path, mean=MEAN, std=STD)
    (label_map,) = load_model("g", settings, two, GRID).predict(frames[:1])
    score = ((frames[0].rgb - np.array(MEAN)) / STD) @ mixing(1)[0]
    assert label_map is not None
    assert (label_map == (score > 0)).mean() > 0.999


def test_what_the_file_does_not_tell_must_be_said(
    onnx_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="does not tell how; give mean and std"):
        load_model("g", changed(onnx_settings, mean=None), three_labels, GRID)
    with pytest.raises(ModelError, match="has 3 output classes, but 2 class names are known"):
        load_model("g", changed(onnx_settings, own_classes=("cat", "dog")), three_labels, GRID)
    path = write_onnx(tmp_path / "m.onnx", dtype="UINT8", answer="ids")
    load_model("g", changed(onnx_settings, path=path, mean=None, std=None), three_labels, GRID)


def test_a_file_that_takes_no_images_is_described(
    onnx_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    path = write_onnx(tmp_path / "m.onnx", dtype="DOUBLE")
    with pytest.raises(
        ModelError, match=r"takes images tensor\(double\) \['n', 3, 'h', 'w'\]; wanted one input"
    ):
        load_model("g", changed(onnx_settings, path=path), three_labels, GRID)


def test_operators_of_other_libraries_are_refused(
    onnx_settings: ModelSettings, three_labels: LabelSet, tmp_path: Path
) -> None:
    import onnx

    model = onnx.load(onnx_settings.required_path)
    model.graph.node[0].domain = "com.somebody"
    model.opset_import.append(onnx.helper.make_opsetid("com.somebody", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r'model "g": cannot load .*m\.onnx'):
        load_model("g", changed(onnx_settings, path=tmp_path / "m.onnx"), three_labels, GRID)


def test_external_data_is_part_of_the_model_and_must_lie_beside_it(
    onnx_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path
) -> None:
    import onnx

    (tmp_path / "m").mkdir()
    model = onnx.load(write_onnx(tmp_path / "plain.onnx", classes=3))
    path = tmp_path / "m" / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    settings = changed(onnx_settings, path=path)
    inside, beside = (load_model("g", s, three_labels, GRID) for s in (onnx_settings, settings))
    for one, two in zip(inside.predict(frames), beside.predict(frames), strict=True):
        assert np.array_equal(one, two)
    weights = path.with_name("weights.bin")
    weights.write_bytes(weights.read_bytes()[::-1])
    assert stored_key("g", settings, three_labels, GRID) != beside.key
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"../weigh.bi"))
    weights.rename(tmp_path / "weigh.bi")
    with pytest.raises(ModelError, match="which is not in its folder; refused"):
        load_model("g", settings, three_labels, GRID)


@pytest.mark.parametrize("device", ["cuda:63", "mps"])
def test_a_device_that_is_not_there_is_named(
    onnx_settings: ModelSettings, three_labels: LabelSet, device: str
) -> None:
    with pytest.raises(ModelError, match=f'model "g": device "{device}" is not there for onnxruntime'):
        load_model("g", changed(onnx_settings, device=device), three_labels, GRID)
