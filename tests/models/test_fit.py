"""How frames come onto a network's canvas, and how its answers come back: against torch and Pillow."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelClass, LabelSet, RgbImage
from mad_backend.core.records import Frame
from mad_backend.models.canvas import Canvas, Size
from mad_backend.models.choice import Place
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import ModelSettings
from tests.models.small_files import write_torchscript
from tests.models.test_every_kind import changed

COLOURS = LabelSet("colours", tuple(LabelClass(n, (0, 0, 0)) for n in ("red", "green", "blue")))


@pytest.fixture(scope="module")
def colour_settings(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    """A network whose logits are the colours, so that its map shows where each pixel went."""
    import torch

    path = write_torchscript(tmp_path_factory.mktemp("colours") / "m.pt", torch.nn.Identity())
    return ModelSettings(kind="torchscript", path=path, mean=(0, 0, 0), std=(255, 255, 255))


def quarters(height: int, width: int) -> tuple[RgbImage, NDArray[np.int64]]:
    """An image of four plain parts, and the class of each pixel: red, green; blue, red."""
    ids = np.zeros((height, width), np.int64)
    ids[: height // 2, width // 2 :] = 1
    ids[height // 2 :, : width // 2] = 2
    return np.eye(3, dtype=np.uint8)[ids] * 200, ids


@pytest.mark.parametrize("fit", ["pad", "keep", "stretch"])
@pytest.mark.parametrize("input_size", [(32, 96), (96, 32), (64, 64), 40, (200, 300)])
@pytest.mark.parametrize("size", [(64, 48), (40, 64)])
def test_every_fit_brings_each_pixel_back_to_its_place(
    colour_settings: ModelSettings, fit: str, input_size: object, size: Size
) -> None:
    rgb, ids = quarters(*size)
    model = load_model("g", changed(colour_settings, fit=fit, input_size=input_size), COLOURS, Grid(64))
    (label_map,) = model.predict([Frame("a", rgb, size)])
    assert label_map is not None
    wrong = np.argwhere(label_map != ids)
    # Where a frame shrank to a half or less, a border may have moved by a pixel.
    near = (np.abs(wrong[:, 0] - size[0] / 2 + 0.5) < 2) | (np.abs(wrong[:, 1] - size[1] / 2 + 0.5) < 2)
    assert near.all()
    if fit != "stretch" and input_size in {(64, 64), (200, 300)}:
        assert len(wrong) == 0


def test_the_content_fits_the_canvas_and_is_never_enlarged_but_by_stretching() -> None:
    pad, keep, stretch = (Canvas((100, 200), fit) for fit in ("pad", "keep", "stretch"))
    assert pad.content_size((200, 200)) == keep.content_size((200, 200)) == (100, 100)
    assert pad.content_size((50, 400)) == (25, 200)
    assert pad.content_size((50, 60)) == keep.content_size((50, 60)) == (50, 60)
    assert pad.content_size((1, 5000)) == (1, 200)
    assert stretch.content_size((50, 60)) == (100, 200)
    assert pad.input_size((50, 60)) == stretch.input_size((100, 200)) == (100, 200)
    assert keep.input_size((50, 60)) == (50, 60)


def test_the_default_canvas_is_the_grid() -> None:
    settings = ModelSettings(kind="hf", path=Path("m"))
    assert Canvas.of(settings, Grid(64)).size == (64, 64)
    assert Canvas.of(changed(settings, input_size=32), Grid(64)).size == (32, 32)
    assert Canvas.of(changed(settings, input_size=(32, 48)), Grid(64)).size == (32, 48)


def test_only_frames_of_one_input_size_are_in_a_batch(frames: list[Frame]) -> None:
    assert list(Canvas((64, 64), "pad").batches(frames, 4)) == [[0, 1, 2, 3], [4]]
    assert list(Canvas((64, 64), "keep").batches(frames, 4)) == [[0, 2], [1, 4], [3]]
    assert list(Canvas((64, 64), "stretch").batches(frames, 2)) == [[0, 1], [2, 3], [4]]


def test_pixels_and_normalised_images_stand_in_the_mean_colour(frames: list[Frame]) -> None:
    canvas = Canvas((64, 64), "pad")
    contents = [frames[0].rgb, frames[3].rgb]
    pixels = canvas.pixels(contents, (1, 2.6, 3))
    assert (pixels.shape, pixels.dtype) == ((2, 64, 64, 3), np.uint8)
    assert np.array_equal(pixels[0, :, :48], frames[0].rgb)
    assert (pixels[0, :, 48:] == (1, 3, 3)).all()
    assert (pixels[1, 20:] == (1, 3, 3)).all()
    values = canvas.normalised(contents, (1, 2.6, 3), (2, 3, 4))
    assert (values.shape, values.dtype) == ((2, 3, 64, 64), np.float32)
    expected = (frames[3].rgb - np.array([1, 2.6, 3])) / (2, 3, 4)
    assert np.allclose(values[1, :, :20, :20], np.moveaxis(expected, 2, 0), atol=1e-5)
    assert not values[1, :, 20:].any()
    assert not values[1, :, :, 20:].any()


def test_torch_normalises_as_numpy_does(colour_settings: ModelSettings, frames: list[Frame]) -> None:
    settings = changed(colour_settings, mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))
    model = load_model("g", settings, COLOURS, Grid(64))
    assert isinstance(model, TorchModel)
    contents = [frame.rgb for frame in frames]
    assert np.allclose(
        model.batch(contents).numpy(), model.canvas.normalised(contents, model.mean, model.std), atol=1e-5
    )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(5, 9, 7), (2, 1, 1), (21, 33, 33), (3, 70, 90), (4, 1, 30)])
def test_classes_are_chosen_as_torch_upsamples_and_argmax_chooses(
    shape: tuple[int, int, int], *, align_corners: bool
) -> None:
    import torch

    logits = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    canvas, content = (70, 90), (61, 83)
    upsampled = torch.nn.functional.interpolate(
        logits[None], size=canvas, mode="bilinear", align_corners=align_corners
    )[0, :, : content[0], : content[1]]
    place, expected = Place(canvas, content, content), upsampled.argmax(0).numpy()
    assert (place.choose(logits.numpy(), align_corners=align_corners) == expected).mean() > 0.9995
    on_device = place.choose_on_device(logits, align_corners=align_corners)
    assert (on_device.numpy() == expected).mean() > 0.9995


def test_a_stretched_frame_is_upsampled_at_once_as_torch_would() -> None:
    import torch

    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 8, 9)).astype(np.float32))
    place = Place((32, 36), (32, 36), (51, 30))
    expected = torch.nn.functional.interpolate(logits[None], size=(51, 30), mode="bilinear")[0].argmax(0)
    for chosen in (
        place.choose(logits.numpy(), align_corners=False),
        place.choose_on_device(logits, align_corners=False),
    ):
        assert (np.asarray(chosen) == expected.numpy()).mean() > 0.99


def test_of_equal_logits_the_first_class_is_chosen() -> None:
    logits = np.ones((300, 4, 4), np.float32)
    logits[299, 0, 0] = 2
    chosen = Place((4, 4), (4, 4), (4, 4)).choose(logits, align_corners=False)
    assert chosen[0, 0] == 299
    assert chosen.sum() == 299


@pytest.mark.parametrize("frame", [(20, 30), (57, 91), (13, 8)])
def test_maps_of_class_ids_come_back_as_pillow_resizes_them(frame: Size) -> None:
    own = np.random.default_rng(0).integers(0, 9, (40, 60), np.uint8)
    expected = Image.fromarray(own).resize(frame[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(Place((40, 60), (40, 60), frame).nearest(own), np.asarray(expected))
    part = Image.fromarray(own[:20, :30]).resize(frame[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(Place((40, 60), (20, 30), frame).nearest(own), np.asarray(part))
    # A map of half the input's resolution.
    halves = Place((80, 120), (40, 60), frame).nearest(own)
    assert np.array_equal(halves, np.asarray(part))
