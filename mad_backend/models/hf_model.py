"""Semantic-segmentation models of the transformers library, from a local folder."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.base import TorchModel, missing_file
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class HfModel(TorchModel):
    """`path` is a folder with config.json and model.safetensors, as `save_pretrained` writes it.

    Mean and std (of 0..255 values) come from settings, else from the folder's preprocessor_config.json.
    """

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # loading takes less than a second
        if not (settings.path / "model.safetensors").is_file():
            raise missing_file(
                name, settings.path / "model.safetensors", "a folder written by save_pretrained"
            )
        try:
            config = AutoConfig.from_pretrained(settings.path, local_files_only=True)
            self.module = AutoModelForSemanticSegmentation.from_pretrained(
                settings.path, config=config, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f'model "{name}": transformers cannot load {settings.path}: {error}') from error
        own = settings.own_classes or tuple(config.id2label[i] for i in range(config.num_labels))
        super().__init__(name, settings, labels, grid, own)
        self.check_outputs(config.num_labels, own)
        self.mean, self.std = self._statistics()
        self.module.eval()

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        always = [settings.path / "config.json", settings.path / "model.safetensors"]
        statistics = settings.path / "preprocessor_config.json"
        return [*always, statistics] if statistics.is_file() else always

    def logits(self, batch: "torch.Tensor") -> "torch.Tensor":
        answer: torch.Tensor = self.module(pixel_values=batch).logits
        return answer

    def save(self, folder: Path) -> Path:
        self.module.save_pretrained(folder, safe_serialization=True)
        statistics = {"image_mean": [v / 255 for v in self.mean], "image_std": [v / 255 for v in self.std]}
        (folder / "preprocessor_config.json").write_text(json.dumps(statistics), encoding="utf-8")
        return folder

    def _statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        path = self.settings.path / "preprocessor_config.json"
        raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        mean = self.settings.mean or tuple(255 * v for v in raw.get("image_mean", IMAGENET_MEAN))
        std = self.settings.std or tuple(255 * v for v in raw.get("image_std", IMAGENET_STD))
        return mean, std
