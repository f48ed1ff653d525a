"""Networks of segmentation-models-pytorch, with weights from a file or folder."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.base import missing_file
from mad_backend.models.canvas import Size
from mad_backend.models.torch_model import IMAGENET_MEAN, IMAGENET_STD, TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.models.weights import put_weights, read_weights, save_weights
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch


class SmpModel(TorchModel):
    """`path` is a folder written by `save_pretrained`, or weights (.safetensors, or .pth of tensors).

    Weights need `architecture` (Unet, FPN, ...) and `encoder` (resnet34, ...), and the library's default decoder.
    Nothing is ever downloaded. Mean and std are ImageNet's unless settings say otherwise.
    """

    unused = frozenset({"url", "config"})

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        define_missing_operators()
        path = settings.required_path
        weights_path = _weights_path(settings)
        if not weights_path.is_file():
            raise missing_file(name, path, "a folder written by save_pretrained, or weights")
        weights = read_weights(name, weights_path)
        # Of the layers of the head the last one has an output per class.
        biases = [k for k in weights if k.startswith("segmentation_head.") and k.endswith(".bias")]
        if not biases:
            raise ModelError(
                f'model "{name}": {weights_path} has no segmentation_head, as networks of '
                "segmentation-models-pytorch have"
            )
        outputs = len(weights[max(biases)])
        module = _build(name, settings, outputs)
        put_weights(name, module, weights, weights_path)
        own = settings.own_classes or labels.names
        mean, std = settings.mean or IMAGENET_MEAN, settings.std or IMAGENET_STD
        super().__init__(name, settings, labels, grid, own, module, mean, std)
        self.check_outputs(outputs)

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        path = settings.required_path
        return [path / "config.json", path / "model.safetensors"] if path.is_dir() else [path]

    def run(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        import torch

        height, width = batch.shape[-2:]
        rows, columns = self.seen_size((height, width))
        # Their answer has the size of the input.
        padded = torch.nn.functional.pad(batch, (0, columns - width, 0, rows - height))
        answer = module(padded)
        masks: torch.Tensor = answer[0] if isinstance(answer, tuple) else answer
        return masks[:, :, :height, :width]

    def seen_size(self, size: Size) -> Size:
        # Most of these networks take multiples of their stride only.
        stride = self.module.encoder.output_stride
        return size[0] + -size[0] % stride, size[1] + -size[1] % stride

    def save(self, folder: Path) -> Path:
        path = save_weights(self.module, folder)
        if not self.settings.required_path.is_dir():
            return path
        shutil.copyfile(self.settings.required_path / "config.json", folder / "config.json")
        return folder


def _weights_path(settings: ModelSettings) -> Path:
    path = settings.required_path
    return path / "model.safetensors" if path.is_dir() else path


def _build(name: str, settings: ModelSettings, outputs: int) -> Any:
    import segmentation_models_pytorch as smp

    parameters: dict[str, Any] = {"encoder_name": settings.encoder, "classes": outputs}
    architecture = settings.architecture
    if settings.required_path.is_dir():
        try:
            parameters = json.loads((settings.required_path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f'model "{name}": cannot read its config.json: {error}') from error
        architecture = parameters.pop("_model_class", architecture)
    known = {network.__name__: network for network in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if architecture not in known or not parameters.get("encoder_name"):
        raise ModelError(
            f'model "{name}": architecture "{architecture}" and encoder "{parameters.get("encoder_name")}" do not '
            f"name a network; wanted one of {', '.join(known)}, and an encoder of segmentation-models-pytorch"
        )
    try:
        return known[architecture](**{**parameters, "encoder_weights": None})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f'model "{name}": segmentation-models-pytorch cannot build it: {str(error)[:600]}'
        ) from error
