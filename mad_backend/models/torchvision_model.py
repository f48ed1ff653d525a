"""torchvision's segmentation networks, with weights from a file."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.base import missing_file
from mad_backend.models.torch_model import IMAGENET_MEAN, IMAGENET_STD, TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.models.weights import put_weights, read_weights, save_weights
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch

LAST_LAYERS = ("classifier.4.bias", "classifier.high_classifier.bias")
"""Where the outputs are counted: in FCN and DeepLabV3, in LR-ASPP."""


class TorchvisionModel(TorchModel):
    """`architecture` is one of torchvision's (deeplabv3_resnet50, ...), `path` its weights.

    They are a .safetensors file, or a .pth of tensors. Nothing is ever downloaded. Mean and std are ImageNet's unless
    settings say otherwise.
    """

    unused = frozenset({"url", "config", "encoder"})

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        define_missing_operators()
        from torchvision.models import get_model, list_models, segmentation

        known = list_models(segmentation)
        if settings.architecture not in known:
            raise ModelError(
                f'model "{name}": architecture "{settings.architecture}" is not a segmentation network of torchvision; '
                f"wanted one of {', '.join(known)}"
            )
        path = settings.required_path
        if not path.is_file():
            raise missing_file(name, path, "weights (.safetensors, or .pth of tensors)")
        weights = read_weights(name, path)
        last = next((weights[key] for key in LAST_LAYERS if key in weights), None)
        if last is None:
            raise ModelError(
                f'model "{name}": {path} has no {" or ".join(LAST_LAYERS)}, as {settings.architecture} has'
            )
        extra = {"aux_loss": True} if any(key.startswith("aux_classifier.") for key in weights) else {}
        module = get_model(
            settings.architecture, weights=None, weights_backbone=None, num_classes=len(last), **extra
        )
        put_weights(name, module, weights, path)
        own = settings.own_classes or labels.names
        mean, std = settings.mean or IMAGENET_MEAN, settings.std or IMAGENET_STD
        super().__init__(name, settings, labels, grid, own, module, mean, std)
        self.check_outputs(len(last))

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return (settings.required_path,)

    def run(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        # Not the network's own forward: it upsamples, and computes the auxiliary head, which nobody asks for.
        features = module.backbone(batch)
        answer: torch.Tensor = module.classifier(features.get("out", features))
        return answer

    def save(self, folder: Path) -> Path:
        return save_weights(self.module, folder)
