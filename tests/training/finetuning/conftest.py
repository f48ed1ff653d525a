"""Small networks of every kind that can be trained, and plans of runs that take a second."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.models.registry import load_model
from mad_backend.models.torch_model import TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.models.weights import save_weights
from mad_backend.settings import ModelSettings, TrainingSettings
from mad_backend.settings_file import load_label_set
from tests.training.conftest import CONFIGS, samples_of
from training.finetuning.dev import DevScore
from training.finetuning.plan import RunPlan

GRID = Grid(64)
SCENES = load_label_set(CONFIGS / "label_sets" / "scenes.yaml")
TINY = "tests.training.finetuning.tiny_network"
ModelOf = Callable[[str], TorchModel]
PlanOf = Callable[..., RunPlan]


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> dict[str, ModelSettings]:
    """Settings of one model of each trainable kind, with eight outputs, random but for mmseg's."""
    root = tmp_path_factory.mktemp("networks")
    define_missing_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import segmentation_models_pytorch as smp
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large
        from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation
    torch.manual_seed(0)
    narrow = MobileNetV2Config(
        depth_multiplier=0.1,
        min_depth=8,
        output_stride=16,
        image_size=64,
        id2label=dict(enumerate(SCENES.names)),
    )
    MobileNetV2ForSemanticSegmentation(narrow).save_pretrained(root / "hf")
    lraspp = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=8)
    linknet = smp.Linknet("tu-lcnet_035", encoder_weights=None, classes=8)
    return {
        "mmseg": ModelSettings(
            kind="mmseg",
            config=scenes / "models" / "target.py",
            path=CONFIGS / "mmseg" / "weights" / "scenes_fastscnn.safetensors",
            fit="keep",
        ),
        "hf": ModelSettings(kind="hf", path=root / "hf", fit="keep"),
        "torchvision": ModelSettings(
            kind="torchvision",
            architecture="lraspp_mobilenet_v3_large",
            path=save_weights(lraspp, root / "torchvision"),
        ),
        "smp": ModelSettings(
            kind="smp",
            architecture="Linknet",
            encoder="tu-lcnet_035",
            path=save_weights(linknet, root / "smp"),
        ),
        "module": ModelSettings(kind=f"{TINY}:TinyNet", fit="keep"),
        "plain": ModelSettings(kind=f"{TINY}:PlainNet", fit="keep"),
    }


@pytest.fixture
def model_of(networks: dict[str, ModelSettings]) -> ModelOf:
    """Loads the same small model afresh at each call."""

    def load(name: str) -> TorchModel:
        model = load_model("target", networks[name], SCENES, GRID, "cpu")
        assert isinstance(model, TorchModel)
        return model

    return load


@pytest.fixture
def scene_labels() -> LabelSet:
    return SCENES


@pytest.fixture
def plan_of(scenes: Path) -> PlanOf:
    """A plan of `count` images of S and four of S(0), whose dev set does not look at the model."""

    def make(count: int = 2, **settings: Any) -> RunPlan:
        own = {"learning_rates": (1e-3,), "epochs": 1, "workers": 0, "cache_bytes": 0}
        fields = {"recipe": "paper", "dropout": False, **own, **settings}
        return RunPlan(
            samples_of(scenes / "pool", "hidden_masks", count),
            samples_of(scenes / "s0", "masks", 4),
            GRID,
            TrainingSettings.model_validate(fields),
            7,
            lambda model: DevScore(0.5),
            lambda progress: None,
            [sample.image for sample in samples_of(scenes / "pool", "hidden_masks", 12)[8:]],
        )

    return make
