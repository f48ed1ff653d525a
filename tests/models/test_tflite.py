"""TFLite files of every number type, against numpy."""

from pathlib import Path

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model
from mad_backend.settings import ModelSettings
from tests.models.small_files import MEAN, STD, mixing, write_tflite
from tests.models.test_every_kind import changed

GRID = Grid(64)


@pytest.mark.parametrize("answer", ["logits", "ids"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_every_number_type_of_images_and_answers_is_understood(
    tflite_settings: ModelSettings,
    three_labels: LabelSet,
    frames: list[Frame],
    tmp_path: Path,
    dtype: str,
    answer: str,
) -> None:
    path = write_tflite(tmp_path / "m.tflite", dtype=dtype, answer=answer)
    model = load_model("g", changed(tflite_settings, path=path), three_labels, GRID)
    for label_map, frame in zip(model.predict(frames), frames, strict=True):
        expected = (((frame.rgb - np.array(MEAN)) / STD) @ mixing(3).T).argmax(2)
        assert label_map is not None
        assert (label_map == expected).mean() > (0.999 if dtype == "float32" else 0.9)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_without_mean_and_std_pixels_go_in_as_they_are(
    tflite_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path, dtype: str
) -> None:
    path = write_tflite(tmp_path / "m.tflite", dtype=dtype)
    plain = changed(tflite_settings, path=path, mean=None, std=None)
    for label_map, frame in zip(
        load_model("g", plain, three_labels, GRID).predict(frames), frames, strict=True
    ):
        # The network's real numbers are 64ths around 128 or 0.
        expected = (((frame.rgb.astype(float) - 128) / 64) @ mixing(3).T).argmax(2)
        assert label_map is not None
        assert (label_map == expected).mean() > 0.9


def test_frames_larger_than_the_file_s_size_are_scaled_or_stretched(
    tflite_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path
) -> None:
    settings = changed(tflite_settings, path=write_tflite(tmp_path / "m.tflite", size=(24, 40)))
    for fit in ("pad", "stretch"):
        maps = load_model("g", changed(settings, fit=fit), three_labels, GRID).predict(frames)
        assert [m.shape for m in maps if m is not None] == [f.rgb.shape[:2] for f in frames]
    with pytest.raises(ModelError, match="takes images of 24 x 40 pixels only"):
        load_model("g", changed(settings, fit="keep"), three_labels, GRID)
    with pytest.raises(ModelError, match="takes images of 24 x 40 pixels only; leave input_size out"):
        load_model("g", changed(settings, input_size=(40, 24)), three_labels, GRID)


def test_class_names_and_the_colours_of_float_images_must_be_said(
    tflite_settings: ModelSettings, three_labels: LabelSet
) -> None:
    with pytest.raises(ModelError, match="list them under own_classes"):
        load_model("g", changed(tflite_settings, own_classes=None), three_labels, GRID)
    with pytest.raises(ModelError, match="give mean and std"):
        load_model("g", changed(tflite_settings, std=None), three_labels, GRID)
    with pytest.raises(ModelError, match="has 3 output classes, but 2 class names are known"):
        load_model("g", changed(tflite_settings, own_classes=("cat", "dog")), three_labels, GRID)


def test_another_precision_is_refused(tflite_settings: ModelSettings, three_labels: LabelSet) -> None:
    with pytest.raises(ModelError, match='precision has no meaning for kind "tflite"'):
        load_model("g", changed(tflite_settings, precision="bf16"), three_labels, GRID)
