"""What every PyTorch model shares: normalisation, device, precision, upsampling and class choice."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet, RgbImage
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.base import SegmentationModel
from mad_backend.models.canvas import Canvas, Channels, Size, size_of
from mad_backend.models.choice import Place
from mad_backend.models.graph import InferenceGraph
from mad_backend.models.threads import side_by_side
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN: Channels = (123.675, 116.28, 103.53)
IMAGENET_STD: Channels = (58.395, 57.12, 57.375)


class TorchModel(SegmentationModel):
    """A PyTorch network that gives logits; subclasses load `module` and answer `logits`.

    `mean` and `std` are in the order of the network's channels, which are BGR where `is_bgr`. Raises ModelError when
    this machine lacks the device or the precision that settings ask for.
    """

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        labels: LabelSet,
        grid: Grid,
        own_classes: Sequence[str],
        module: Any,
        mean: Channels,
        std: Channels,
        *,
        is_bgr: bool = False,
    ) -> None:
        super().__init__(name, settings, labels, grid, own_classes)
        self.mean, self.std = mean, std
        self.is_bgr = is_bgr
        self.canvas = Canvas.of(settings, grid)
        self.align_corners = settings.align_corners
        self._device = chosen_device(name, settings)
        self.module = module.to(self._device).eval()
        self.graph = InferenceGraph(name, self.module, self.run, self.canvas.size, settings.precision)

    @abstractmethod
    def run(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        """(n, C, h, w) logits, at any resolution, of a (n, 3, H, W) float32 batch that is already normalised.

        `module` is the network, or its twin for inference.
        """

    def logits(self, batch: "torch.Tensor") -> "torch.Tensor":
        """What the network itself gives, for training."""
        return self.run(self.module, batch)

    def seen_size(self, size: Size) -> Size:
        """What the network sees of a batch of this size: more where `run` pads it at the bottom and on the right."""
        return size

    @abstractmethod
    def save(self, folder: Path) -> Path:
        """Writes the weights into `folder` without pickle; returns what settings' `path` must be to load them."""

    @property
    def device(self) -> "torch.device":
        """Where the network is now: training may have moved it."""
        first = next(iter(self.module.parameters()), None)
        return self._device if first is None else first.device

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        """As every model; raises ModelError when the network refuses its input or memory runs out.

        A GPU takes batches, a CPU one image for each of its cores.
        """
        self.module.eval()
        if self.device.type == "cpu":
            alone = side_by_side(self._predict_batch, [[frame] for frame in frames])
            return [label_map for (label_map,) in alone]
        maps: list[LabelMap | None] = [None] * len(frames)
        for indices in self.canvas.batches(frames, self.settings.batch_size):
            batch = self._predict_batch([frames[i] for i in indices])
            for i, label_map in zip(indices, batch, strict=True):
                maps[i] = label_map
        return maps

    def _predict_batch(self, frames: Sequence[Frame]) -> list[LabelMap]:
        import torch

        with torch.inference_mode():
            contents = [self.canvas.content(frame.rgb) for frame in frames]
            logits = self.forward(self.batch(contents))
            return self._choose(
                logits, [size_of(content) for content in contents], [size_of(frame.rgb) for frame in frames]
            )

    def check_by_trial(self) -> None:
        """Shows the network one grey image; raises ModelError unless it answers one output per class."""
        import torch

        with torch.inference_mode():
            logits = self.forward(self.batch([np.full((*self.canvas.size, 3), 128, np.uint8)]))
        self.check_outputs(logits.shape[1])

    def batch(self, contents: Sequence[RgbImage]) -> "torch.Tensor":
        """(n, 3, H, W) float32 on the network's device: normalised, around each content 0, the mean colour."""
        import torch

        device = self.device
        if device.type == "cpu":
            return torch.from_numpy(self.canvas.normalised(contents, self.mean, self.std, is_bgr=self.is_bgr))
        pixels = torch.from_numpy(self.canvas.pixels(contents, (0, 0, 0)))
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        channels = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
        if self.is_bgr:
            channels = channels.flip(1)
        batch = channels.to(torch.float32, memory_format=torch.contiguous_format)
        mean, std = (torch.tensor(v, dtype=torch.float32, device=device) for v in (self.mean, self.std))
        batch.sub_(mean[:, None, None]).div_(std[:, None, None])
        for one, content in zip(batch, contents, strict=True):
            height, width = size_of(content)
            one[:, height:] = 0
            one[:, :, width:] = 0
        return batch

    def forward(
        self, batch: "torch.Tensor", network: "Callable[[torch.Tensor], torch.Tensor] | None" = None
    ) -> "torch.Tensor":
        """(n, C, h, w) float32 logits, C as many as own classes, by `network` in place of the one for inference.

        Raises ModelError when the network refuses the batch or memory runs out.
        """
        import torch

        try:
            logits = (network or self.graph)(batch)
        except RuntimeError as error:
            raise ModelError(
                f'model "{self.name}": its network fails on a batch of shape {tuple(batch.shape)}: '
                f"{str(error)[:600]}; see its fit, input_size and batch_size"
            ) from error
        if logits.shape[1] == 1 and len(self.own_classes) == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        return logits

    def _choose(
        self, logits: "torch.Tensor", contents: Sequence[Size], frames: Sequence[Size]
    ) -> list[LabelMap]:
        """Label maps of a batch, of the frames' sizes; on a GPU everything but uint8 maps stays there."""
        import torch

        places = [
            Place(self.canvas.input_size(content), content, frame)
            for content, frame in zip(contents, frames, strict=True)
        ]
        both = list(zip(logits, places, strict=True))
        if logits.device.type == "cpu":
            chosen = [place.choose(one.numpy(), align_corners=self.align_corners) for one, place in both]
            return [np.take(self.table, ids) for ids in chosen]
        table = torch.from_numpy(self.table).to(logits.device)
        # All are under way before the first is waited for.
        maps = [table[place.choose_on_device(one, align_corners=self.align_corners)] for one, place in both]
        return [label_map.cpu().numpy() for label_map in maps]


def found_logits(model: str, network: str, answer: Any) -> "torch.Tensor":
    """(n, C, h, w) logits in whatever a network answers; raises ModelError where there are none."""
    if isinstance(answer, dict):
        answer = answer.get("out", answer.get("logits"))
    elif isinstance(answer, tuple | list):
        answer = answer[0] if answer else None
    logits: torch.Tensor = getattr(answer, "logits", answer)
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 4:
        raise ModelError(
            f'model "{model}": {network} answers a tensor of shape {shape}; wanted logits (n, C, h, w), alone, first '
            'of a tuple, under "out" or "logits" of a dict, or as `logits` of an object'
        )
    return logits


def chosen_device(model: str, settings: ModelSettings) -> "torch.device":
    """The device that settings ask for; raises ModelError when it is not there, or cannot do the precision."""
    import torch

    wanted = settings.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f'model "{model}": device "{wanted}" is not on this machine ({torch.cuda.device_count()} CUDA devices, '
            f"torch {torch.__version__}); write device: auto, or cpu"
        ) from error
    if device.type == "cpu" and settings.precision == "fp16":
        raise ModelError(f'model "{model}": precision fp16 is for GPUs; on a CPU write bf16 or fp32')
    return device
