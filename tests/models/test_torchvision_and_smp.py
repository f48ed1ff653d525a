"""Networks of torchvision and segmentation-models-pytorch, against the libraries' own answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model
from mad_backend.models.smp_model import SmpModel
from mad_backend.models.torch_model import TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.models.weights import save_weights
from mad_backend.settings import ModelSettings
from tests.models.test_every_kind import changed

GRID = Grid(64)


def maps_agree(model: TorchModel, answer: Any, frame: Frame) -> bool:
    """Whether the model's map of a frame is the argmax of the (1, C, H, W) `answer` on its canvas."""
    height, width = frame.rgb.shape[:2]
    (label_map,) = model.predict([frame])
    expected = answer[0, :, :height, :width].argmax(0).numpy()
    return bool((label_map == expected).mean() > 0.999)


@pytest.mark.parametrize(
    ("architecture", "auxiliary"),
    [
        ("lraspp_mobilenet_v3_large", False),
        ("deeplabv3_mobilenet_v3_large", False),
        ("deeplabv3_mobilenet_v3_large", True),
    ],
)
def test_a_torchvision_network_answers_as_its_own_forward(
    three_labels: LabelSet, frames: list[Frame], tmp_path: Path, architecture: str, *, auxiliary: bool
) -> None:
    import torch

    define_missing_operators()
    from torchvision.models import get_model

    torch.manual_seed(0)
    extra = {"aux_loss": True} if auxiliary else {}
    network = get_model(architecture, weights=None, weights_backbone=None, num_classes=3, **extra).eval()
    path = save_weights(network, tmp_path)
    settings = ModelSettings(kind="torchvision", architecture=architecture, path=path)
    model = load_model("g", settings, three_labels, GRID)
    assert isinstance(model, TorchModel)
    with torch.inference_mode():
        answer = network(model.batch([frames[0].rgb]))["out"]
    assert maps_agree(model, answer, frames[0])


def test_an_architecture_that_is_none_lists_those_there_are(
    torchvision_settings: ModelSettings, smp_settings: ModelSettings, three_labels: LabelSet
) -> None:
    with pytest.raises(
        ModelError, match=r'architecture "resnet18" is not a segmentation network .*fcn_resnet50'
    ):
        load_model("g", changed(torchvision_settings, architecture="resnet18"), three_labels, GRID)
    with pytest.raises(ModelError, match=r'architecture "unet" and encoder "tu-lcnet_035" .*Unet, '):
        load_model("g", changed(smp_settings, architecture="unet"), three_labels, GRID)
    with pytest.raises(ModelError, match='and encoder "None" do not name a network'):
        load_model("g", changed(smp_settings, encoder=None), three_labels, GRID)
    with pytest.raises(ModelError, match="segmentation-models-pytorch cannot build it"):
        load_model("g", changed(smp_settings, encoder="no-such-encoder"), three_labels, GRID)


@pytest.mark.parametrize("architecture", ["FPN", "Linknet"])
def test_an_smp_folder_is_read_and_written(
    three_labels: LabelSet, frames: list[Frame], tmp_path: Path, architecture: str
) -> None:
    import segmentation_models_pytorch as smp
    import torch

    torch.manual_seed(0)
    network = getattr(smp, architecture)(
        "tu-lcnet_035", encoder_weights=None, classes=3, encoder_depth=4, aux_params={"classes": 2}
    ).eval()
    network.save_pretrained(tmp_path / "m")
    model = load_model("g", ModelSettings(kind="smp", path=tmp_path / "m"), three_labels, GRID)
    assert isinstance(model, SmpModel)
    with torch.inference_mode():
        assert maps_agree(model, network(model.batch([frames[0].rgb]))[0], frames[0])
    again = load_model("g", ModelSettings(kind="smp", path=model.save(tmp_path / "n")), three_labels, GRID)
    assert np.array_equal(model.predict(frames[:1])[0], again.predict(frames[:1])[0])


def test_an_smp_network_takes_any_input_size(
    smp_settings: ModelSettings, three_labels: LabelSet, frames: list[Frame]
) -> None:
    for fit in ("keep", "pad"):
        odd = changed(smp_settings, input_size=(51, 37), fit=fit)
        maps = load_model("g", odd, three_labels, GRID).predict(frames)
        assert [m.shape for m in maps if m is not None] == [f.rgb.shape[:2] for f in frames]


def test_torchvision_can_be_imported_and_asking_again_changes_nothing() -> None:
    """Also beside a torch without CUDA, for which its compiled part is not made."""
    import torch

    define_missing_operators()
    import torchvision

    define_missing_operators.cache_clear()
    define_missing_operators()
    assert hasattr(torch.ops.torchvision, "nms")
    assert "deeplabv3_resnet50" in torchvision.models.list_models(torchvision.models.segmentation)
