"""Semantic-segmentation models of the transformers library, from a local folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.base import missing_file
from mad_backend.models.canvas import Channels
from mad_backend.models.torch_model import IMAGENET_MEAN, IMAGENET_STD, TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch

STATISTICS = "preprocessor_config.json"


class HfModel(TorchModel):
    """`path` is a folder with config.json and model.safetensors, as `save_pretrained` writes it.

    Mean and std (of 0..255 values) come from settings, else from the folder's preprocessor_config.json.
    """

    unused = frozenset({"url", "config", "architecture", "encoder"})

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        define_missing_operators()
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # loading takes less than a second
        path = settings.required_path
        if not (path / "model.safetensors").is_file():
            raise missing_file(name, path / "model.safetensors", "a folder written by save_pretrained")
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            module = AutoModelForSemanticSegmentation.from_pretrained(
                path, config=config, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise ModelError(f'model "{name}": transformers cannot load {path}: {error}') from error
        own = settings.own_classes or tuple(config.id2label[i] for i in range(config.num_labels))
        super().__init__(name, settings, labels, grid, own, module, *_statistics(settings))
        self.check_outputs(config.num_labels)

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        folder = settings.required_path
        always = [folder / "config.json", folder / "model.safetensors"]
        return [*always, folder / STATISTICS] if (folder / STATISTICS).is_file() else always

    def run(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        answer: torch.Tensor = module(pixel_values=batch).logits
        return answer

    def save(self, folder: Path) -> Path:
        self.module.save_pretrained(folder, safe_serialization=True)
        statistics = {"image_mean": [v / 255 for v in self.mean], "image_std": [v / 255 for v in self.std]}
        (folder / STATISTICS).write_text(json.dumps(statistics), encoding="utf-8")
        return folder


def _statistics(settings: ModelSettings) -> tuple[Channels, Channels]:
    path = settings.required_path / STATISTICS
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    mean = _of_255(raw.get("image_mean")) or IMAGENET_MEAN
    std = _of_255(raw.get("image_std")) or IMAGENET_STD
    if raw.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
    return settings.mean or mean, settings.std or std


def _of_255(values: list[float] | None) -> Channels | None:
    if values is None:
        return None
    red, green, blue = values
    return 255 * red, 255 * green, 255 * blue
