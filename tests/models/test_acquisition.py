"""Entropy, margin, mutual information and embeddings, against sums over single pixels and over every outcome."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.acquisition import Acquirer
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import ModelSettings
from tests.models.conftest import MMSEG_CONFIG
from tests.models.stochastic_networks import SHARE
from tests.models.test_every_kind import changed

GRID = Grid(64)
PLACE = "tests.models.stochastic_networks"
LAST_LAYERS = {
    "hf": "decode_head.classifier",
    "mmseg": "decode_head.conv_seg",
    "torchvision": "classifier.high_classifier",
    "smp": "segmentation_head.0",
}


def own(name: str, labels: LabelSet, **settings: Any) -> TorchModel:
    model = load_model("f", ModelSettings(kind=f"{PLACE}:{name}", **settings), labels, GRID)
    assert isinstance(model, TorchModel)
    return model


def answers(
    model: TorchModel, layer: str, frame: Frame
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, int]]:
    """(C, h, w) logits of the network itself, the (d, h', w') input of its last layer, and the size of its input."""
    heard: list[torch.Tensor] = []
    handle = model.module.get_submodule(layer).register_forward_pre_hook(
        lambda _layer, given: heard.append(given[0])
    )
    with torch.inference_mode():
        batch = model.batch([model.canvas.content(frame.rgb)])
        logits = model.run(model.module, batch)
    handle.remove()
    (features,) = heard
    return logits[0].double().numpy(), features[0].double().numpy(), (batch.shape[2], batch.shape[3])


def inside(maps: NDArray[np.float64], seen: tuple[int, int], frame: Frame) -> NDArray[np.float64]:
    """(cells, channels) of those cells of a (channels, h, w) over `seen` pixels whose centre lies in the frame."""
    _, rows, columns = maps.shape
    height, width = frame.rgb.shape[:2]
    return np.array(
        [
            maps[:, y, x]
            for y in range(rows)
            for x in range(columns)
            if (y + 0.5) * seen[0] / rows < height and (x + 0.5) * seen[1] / columns < width
        ]
    )


def entropy_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return -(probabilities * np.log(probabilities)).sum(-1)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", list(LAST_LAYERS))
def test_scores_and_embeddings_are_those_of_the_network_itself_without_padding(
    kind: str, three_labels: LabelSet, frames: list[Frame], request: pytest.FixtureRequest
) -> None:
    settings = request.getfixturevalue(f"{kind}_settings")
    model = load_model("f", changed(settings, fit="pad", input_size=(72, 68)), three_labels, GRID)
    assert isinstance(model, TorchModel)
    for frame, found in zip(frames, Acquirer(model)(frames), strict=True):
        logits, features, size = answers(model, LAST_LAYERS[kind], frame)
        probabilities = np.sort(softmax(inside(logits, size, frame)))
        assert found.entropy == pytest.approx(entropy_of(probabilities).mean(), abs=1e-4)
        assert found.margin == pytest.approx((probabilities[:, -1] - probabilities[:, -2]).mean(), abs=1e-4)
        assert found.mutual_information is None
        # smp's networks see their input padded to multiples of 32.
        seen = (96, 96) if kind == "smp" else size
        mean = inside(features, seen, frame).mean(0)
        assert found.embedding.dtype == np.float32
        np.testing.assert_allclose(found.embedding, mean / np.linalg.norm(mean), atol=1e-3)


@pytest.mark.parametrize("name", ["OneFeature", "Functional"])
def test_mutual_information_is_that_of_every_outcome_of_dropout(
    name: str, three_labels: LabelSet, frames: list[Frame]
) -> None:
    model = own(name, three_labels, fit="pad", input_size=80)
    with torch.no_grad():
        model.module.head.weight.mul_(5)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    acquirer = Acquirer(model, passes=300)
    assert not acquirer.no_information
    (found,) = acquirer(frames[:1])
    bias = model.module.head.bias.detach().double().numpy()
    weight = model.module.head.weight[:, 0, 0, 0].detach().double().numpy()
    _, features, size = answers(model, "head", frames[0])
    feature = inside(features, size, frames[0])
    outcomes = [softmax(bias + weight * feature / (1 - SHARE)), softmax(bias + weight * feature * 0)]
    mean = (1 - SHARE) * outcomes[0] + SHARE * outcomes[1]
    known = (1 - SHARE) * entropy_of(outcomes[0]) + SHARE * entropy_of(outcomes[1])
    expected = (entropy_of(mean) - known).mean()
    assert expected > 0.01
    assert found.mutual_information == pytest.approx(expected, rel=0.1)
    assert acquirer(frames[:1])[0].mutual_information == found.mutual_information, "the same masks"
    for key, value in model.module.state_dict().items():
        assert torch.equal(value, before[key]), "batch norm has learnt"


@pytest.mark.parametrize(
    ("name", "size", "again"),
    [
        ("OneFeature", 64, 0),
        ("enlarged_by_corners", 64, 0),
        ("enlarged_by_centres", 64, 0),
        ("EnlargedToTheInput", 64, 0),
        ("EnlargedToTheInput", 61, 20),
    ],
)
def test_only_what_follows_dropout_runs_again_and_says_the_same_as_the_whole_network(
    name: str, size: int, again: int, three_labels: LabelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = own(name, three_labels, fit="keep", input_size=80)
    with torch.no_grad():
        model.module.head.weight.mul_(5)
    rgb = np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)

    def information() -> tuple[int, float]:
        runs: list[torch.Size] = []

        def run(module: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
            runs.append(batch.shape)
            return type(model).run(model, module, batch)

        acquirer = Acquirer(model, passes=20)
        with monkeypatch.context() as patched:
            patched.setattr(model, "run", run)
            (found,) = acquirer([Frame("photo", rgb, (size, size))])
        assert found.mutual_information is not None
        return len(runs), found.mutual_information

    runs, of_the_tail = information()
    assert runs == again
    monkeypatch.setattr("mad_backend.models.acquisition._enlarging", lambda *_: None)
    runs, of_all = information()
    assert runs == 20
    assert of_the_tail == pytest.approx(of_all, rel=0.1 if again else 1e-4)
    assert of_all > 0.01


def test_without_dropout_there_is_no_mutual_information_and_a_reason(
    three_labels: LabelSet, frames: list[Frame]
) -> None:
    acquirer = Acquirer(own("without_dropout", three_labels), passes=3)
    assert 'model "f" has no dropout' in acquirer.no_information
    assert acquirer(frames[:1])[0].mutual_information is None


def test_dropout_that_drops_nothing_tells_nothing(three_labels: LabelSet, frames: list[Frame]) -> None:
    (found,) = Acquirer(own("hardly_any_dropout", three_labels), passes=3)(frames[:1])
    assert found.mutual_information == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_image_is_scored_the_same_whatever_is_beside_it(
    device: str, mmseg_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame]
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU, which takes several images at once")
    model = load_model("f", changed(mmseg_settings, batch_size=4), three_labels, GRID, device)
    acquirer = Acquirer(model, passes=3)
    alone = [found for frame in frames for found in acquirer([frame])]
    for one, other in zip(alone, reversed(acquirer(frames[::-1])), strict=True):
        assert one.entropy == pytest.approx(other.entropy, abs=1e-5)
        assert one.margin == pytest.approx(other.margin, abs=1e-5)
        assert one.mutual_information == pytest.approx(other.mutual_information, abs=1e-5)
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-5)
    assert not np.allclose(alone[0].embedding, alone[1].embedding, atol=1e-5)


def test_the_layer_that_scores_is_not_an_auxiliary_one(three_labels: LabelSet, frames: list[Frame]) -> None:
    (found,) = Acquirer(own("WithAuxiliary", three_labels))(frames[:1])
    assert found.embedding.shape == (1,)


def test_windows_that_slide_are_averaged(
    mmseg_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame], tmp_path: Path
) -> None:
    config = tmp_path / "slide.py"
    slide = 'test_cfg=dict(mode="slide", crop_size=(32, 32), stride=(32, 32))'
    config.write_text(
        MMSEG_CONFIG.format(bgr_to_rgb=True).replace('test_cfg=dict(mode="whole")', slide), encoding="utf-8"
    )
    model = load_model("f", changed(mmseg_settings, config=config, fit="keep"), three_labels, GRID)
    (found,) = Acquirer(model)(frames[1:2])
    rgb = frames[1].rgb
    halves = [Frame("half", rgb[:, :32], (32, 32)), Frame("half", rgb[:, 32:], (32, 32))]
    assert isinstance(model, TorchModel)
    mean = np.mean([answers(model, LAST_LAYERS["mmseg"], half)[1].mean((1, 2)) for half in halves], axis=0)
    np.testing.assert_allclose(found.embedding, mean / np.linalg.norm(mean), atol=1e-3)


@pytest.mark.parametrize("kind", ["folder", "onnx"])
def test_a_model_that_gives_label_maps_only_is_refused_by_its_kind(
    kind: str, three_labels: LabelSet, request: pytest.FixtureRequest
) -> None:
    model = load_model("f", request.getfixturevalue(f"{kind}_settings"), three_labels, GRID)
    with pytest.raises(ModelError, match=f'model "f": kind "{kind}" gives label maps only'):
        Acquirer(model)


def test_a_network_that_scores_without_a_convolution_is_refused(three_labels: LabelSet) -> None:
    with pytest.raises(ModelError, match=r"no convolution of its network .* gives the 3 class scores"):
        Acquirer(own("WithoutConvolution", three_labels))
