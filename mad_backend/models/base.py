"""The one interface of all models, and what every PyTorch model shares: canvas, upsampling, class choice."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet, RgbImage, class_table
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch


class SegmentationModel(ABC):
    """Label maps on the common label set, of frames on the evaluation grid.

    `name` is the model's name in settings, or the version of a target; `own_classes` are the names of its outputs.
    """

    def __init__(
        self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid, own_classes: Sequence[str]
    ) -> None:
        self.name = name
        self.settings = settings
        self.labels = labels
        self.grid = grid
        self.table: LabelMap = class_table(name, own_classes, labels, settings.classes)
        self.key = model_key(name, type(self), settings, labels, grid)

    @property
    def class_ids(self) -> set[int]:
        """Ids of the label set that this model can answer."""
        return {int(k) for k in self.table if k < len(self.labels)}

    @abstractmethod
    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        """One (h, w) uint8 map per frame, of the frame's own shape; None where the model has no answer."""

    @classmethod
    @abstractmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        """The files that shape this model's maps; a change in any of them is another model."""

    @classmethod
    def fingerprint(cls, settings: ModelSettings, labels: LabelSet, grid: Grid) -> str:
        """12 hex digits over weights, settings, label set and grid: the same digits mean the same maps."""
        digest = hashlib.sha256()
        shape = settings.model_dump_json(exclude={"batch_size", "path", "config"})
        digest.update(f"{shape}\n{labels.names}\n{grid}\n".encode())
        for path in cls.files(settings):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


def model_key(
    name: str, model_class: type[SegmentationModel], settings: ModelSettings, labels: LabelSet, grid: Grid
) -> str:
    """The name under which a model's maps are stored; known without loading its weights into a network."""
    return f"{name}-{model_class.fingerprint(settings, labels, grid)}"


class TorchModel(SegmentationModel):
    """A PyTorch network that gives logits. Subclasses load `module` and answer `logits`."""

    module: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_bgr = False

    @abstractmethod
    def logits(self, batch: "torch.Tensor") -> "torch.Tensor":
        """(n, C, h, w) logits, at any resolution, of a (n, 3, H, W) float32 batch that is already normalised."""

    @abstractmethod
    def save(self, folder: Path) -> Path:
        """Writes the weights into `folder` without pickle; returns what settings' `path` must be to load them."""

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        import torch

        self.module.eval()
        maps: list[LabelMap | None] = [None] * len(frames)
        with torch.inference_mode():
            for indices in self._batches(frames):
                contents = [self._content(frames[i].rgb) for i in indices]
                batch = torch.stack([self._tensor(content) for content in contents])
                upsampled = torch.nn.functional.interpolate(
                    self.logits(batch),
                    size=batch.shape[-2:],
                    mode="bilinear",
                    align_corners=self.settings.align_corners,
                )
                for i, content, one in zip(indices, contents, upsampled, strict=True):
                    height, width = frames[i].rgb.shape[:2]
                    maps[i] = self._label_map(one[:, : content.shape[0], : content.shape[1]], (height, width))
        return maps

    def check_outputs(self, outputs: int, own_classes: Sequence[str]) -> None:
        """Raises ModelError when the network does not have one output per class."""
        if outputs != len(own_classes):
            raise ModelError(
                f'model "{self.name}": {self.settings.path} has {outputs} output classes, but {len(own_classes)} class '
                f'names are known for it (label set "{self.labels.name}"); list them under own_classes'
            )

    def _batches(self, frames: Sequence[Frame]) -> Iterable[list[int]]:
        """Indices that fit into one tensor, `batch_size` at most."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, frame in enumerate(frames):
            shape = () if self.settings.pad == "square" else frame.rgb.shape[:2]
            by_shape.setdefault(shape, []).append(i)
        size = self.settings.batch_size
        for group in by_shape.values():
            yield from (group[start : start + size] for start in range(0, len(group), size))

    def _content(self, rgb: RgbImage) -> RgbImage:
        """The frame, scaled down where it is larger than the model's input."""
        side = self.settings.input_size or self.grid.size
        height, width = rgb.shape[:2]
        if max(height, width) <= side:
            return rgb
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))

    def _tensor(self, content: RgbImage) -> "torch.Tensor":
        """(3, H, W) float32: normalised, then padded right and below with 0, which is the mean colour."""
        import torch

        # Mean and std are in the network's own channel order, so the channels are turned first.
        channels = content[:, :, ::-1] if self.is_bgr else content
        values = (channels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(values)).permute(2, 0, 1)
        if self.settings.pad == "none":
            return tensor
        side = self.settings.input_size or self.grid.size
        return torch.nn.functional.pad(tensor, (0, side - tensor.shape[2], 0, side - tensor.shape[1]))

    def _label_map(self, logits: "torch.Tensor", shape: tuple[int, int]) -> LabelMap:
        import torch

        if tuple(logits.shape[1:]) != shape:
            resized = torch.nn.functional.interpolate(
                logits[None], size=shape, mode="bilinear", align_corners=False
            )
            logits = resized[0]
        # max().indices: on CPU several times faster than argmax over the channels of NCHW.
        chosen: LabelMap = self.table[logits.max(0).indices.numpy()]
        return chosen


def missing_file(model: str, path: Path, wanted: str) -> ModelError:
    """The error for a checkpoint, configuration or folder that is not there."""
    return ModelError(f'model "{model}": there is no {path}; wanted {wanted}')


def load_safetensors(model: str, module: Any, path: Path) -> None:
    """Loads every weight of `module` from a safetensors file; raises ModelError naming what does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = {
            name: value.float() if value.is_floating_point() else value
            for name, value in load_file(path).items()
        }
        module.load_state_dict(weights, strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelError(f'model "{model}": cannot load {path}: {str(error)[:600]}') from error
