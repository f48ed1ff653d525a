"""A fresh decoder on a backbone from a file: its weights arrive in the encoder, and others are refused."""

from pathlib import Path

import pytest
import torch

from mad_backend.core.grid import Grid
from mad_backend.errors import ModelError
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.models.weights import read_weights
from mad_backend.settings import ModelSettings
from mad_backend.settings_file import load_label_set
from tests.training.conftest import CONFIGS
from training.fresh_networks import ENCODER, new_decoder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under names of another library, in the network's order, with a classifier."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(4)
    state = smp.encoders.get_encoder(ENCODER, weights=None).state_dict()
    given = {f"layer{n}": value.clone() for n, value in enumerate(state.values())}
    path = tmp_path_factory.mktemp("backbone") / "lite0.pth"
    torch.save({**given, "_fc.weight": torch.zeros(10, 4)}, path)
    return path


def test_a_fresh_decoder_stands_on_the_weights_of_the_file(backbone: Path, tmp_path: Path) -> None:
    labels = load_label_set(CONFIGS / "label_sets" / "scenes.yaml")
    new_decoder("added", backbone, tmp_path / "fresh", len(labels), seed=1)
    settings = ModelSettings(kind="smp", path=tmp_path / "fresh")
    model = load_model("fresh", settings, labels, Grid(64))
    assert isinstance(model, TorchModel)
    wanted = [v for name, v in read_weights("backbone", backbone).items() if not name.startswith("_fc.")]
    own = model.module.encoder.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(own, wanted, strict=True))
    assert model.logits(torch.zeros(1, 3, 64, 64)).shape == (1, len(labels), 64, 64)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"EfficientNet-Lite0: wanted \d+ tensors"):
        new_decoder("added", tmp_path / "other.pth", tmp_path / "fresh", 8, seed=1)
