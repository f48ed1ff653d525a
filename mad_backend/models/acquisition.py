"""What a PyTorch network says of an image beside its label map: how sure it is, and what it sees there.

Averages are over the cells of the network's logits, at their own resolution, whose centres lie in the image: padding is
left out. Probabilities are over the network's own classes, before they are mapped to the label set.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.base import SegmentationModel
from mad_backend.models.canvas import Size, size_of
from mad_backend.models.dropout import Dropout, active_dropout
from mad_backend.models.last_layer import LastLayer, watched_convolutions
from mad_backend.models.threads import side_by_side
from mad_backend.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch

    Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Acquisition:
    """Of one image: mean pixel entropy in nats (App. A), mean margin, mean mutual information in nats, embedding.

    The margin is the largest probability less the second. `mutual_information` is BALD's (Houlsby et al. 2011; Gal et
    al. 2017), None where it was not asked for or cannot be had. `embedding` is (d,) float32 of length 1: the mean of
    what enters the layer that makes the class scores.
    """

    entropy: float
    margin: float
    mutual_information: float | None
    embedding: NDArray[np.float32]


class Acquirer:
    """Asks a loaded model, whose weights stay as they are, for `Acquisition`s; BALD's with `passes` > 0.

    Raises ModelError for a kind of model without logits, and for a network without a convolution that makes the class
    scores. Nothing of the model is changed, and it may predict meanwhile.
    """

    def __init__(self, model: SegmentationModel, passes: int = 0) -> None:
        if not isinstance(model, TorchModel):
            raise ModelError(
                f'model "{model.name}": kind "{model.settings.kind}" gives label maps only; entropy, margin, BALD and '
                "embeddings need a network of kind hf, mmseg, smp, torchvision, or package.module:Network"
            )
        self._model = model
        self._layer = _scoring_layer(model)
        self._dropout = _Stochastic(model, passes) if passes else None
        self.no_information = (
            "" if self._dropout and self._dropout.is_active else _no_information(model, passes)
        )
        """Why no mutual information is given; "" where it is."""

    def __call__(self, frames: Sequence[Frame]) -> list[Acquisition]:
        """One a frame, which does not depend on the frames beside it but for rounding; raises as `predict` does."""
        model = self._model
        model.module.eval()
        with self._layer.attached():
            if model.device.type == "cpu":
                return [one for (one,) in side_by_side(self._batch, [[frame] for frame in frames])]
            found: dict[int, Acquisition] = {}
            for indices in model.canvas.batches(frames, model.settings.batch_size):
                found.update(zip(indices, self._batch([frames[i] for i in indices]), strict=True))
            return [found[i] for i in range(len(frames))]

    def _batch(self, frames: Sequence[Frame]) -> list[Acquisition]:
        import torch

        model = self._model
        with torch.inference_mode():
            contents = [model.canvas.content(frame.rgb) for frame in frames]
            batch = model.batch(contents)
            with self._layer.listening() as heard:
                logits = model.forward(batch)
            size: Size = (batch.shape[2], batch.shape[3])
            answers = []
            for i, (frame, content) in enumerate(zip(frames, contents, strict=True)):
                inside = size_of(content)
                cells = _content_cells(logits, size, inside)
                entropy, margin = _uncertainty(logits[i, :, : cells[0], : cells[1]])
                features = [one[i : i + 1] for one in heard]
                information = None
                if self._dropout and self._dropout.is_active:
                    seed = zlib.crc32(frame.image_id.encode())
                    information = self._dropout.information(
                        batch[i : i + 1], features, logits[i], cells, seed
                    )
                embedding = _embedding(features, model.seen_size(size), inside)
                answers.append(Acquisition(entropy, margin, information, embedding))
            return answers


class _Stochastic:
    """A network with its dropout at work and everything else in evaluation: Monte Carlo dropout.

    Where the only dropout feeds the last layer, and that layer's answer is the network's, as it is or enlarged, as in
    most heads, the last layer alone is run again. Else all of the network is: not its twin for inference, in which
    dropout may have been left out, and always in float32.
    """

    def __init__(self, model: TorchModel, passes: int) -> None:
        import torch

        self._model = model
        self._passes = passes
        generator = torch.Generator(model.device).manual_seed(0)
        with torch.inference_mode():
            batch = model.batch([_noise(model.canvas.size)])
            with (
                watched_convolutions(model.module, _outputs(model)) as calls,
                active_dropout(generator) as drops,
            ):
                logits = model.forward(batch, self._run)
        self.is_active = bool(drops)
        self._tail: tuple[Dropout, Function] | None = None
        if len(drops) == 1 and calls:
            (dropout, varied), last = drops[0], calls[-1]
            enlarge = _enlarging(last.answered, logits)
            if _is_same(varied, last.given) and enlarge:
                self._tail = dropout, lambda given: enlarge(last.layer(given))

    def information(
        self,
        image: "torch.Tensor",
        features: "list[torch.Tensor]",
        known: "torch.Tensor",
        cells: Size,
        seed: int,
    ) -> float:
        """Mean mutual information in nats over the first `cells` rows and columns of logits.

        `image` is a batch of one, `features` what entered the last layer, and `known` its (C, h, w) logits without
        dropout. The same seed gives the same masks.
        """
        import torch

        generator = torch.Generator(image.device).manual_seed(seed)
        mean, entropy = torch.zeros(()), torch.zeros(())
        for _ in range(self._passes):
            logits = self._logits(image, features, known, generator)[0, :, : cells[0], : cells[1]]
            probabilities = logits.softmax(0)
            mean = mean.to(logits.device) + probabilities / self._passes
            entropy = entropy.to(logits.device) + torch.special.entr(probabilities).sum(0) / self._passes
        return max(0.0, float((torch.special.entr(mean).sum(0) - entropy).mean()))

    def _logits(
        self,
        image: "torch.Tensor",
        features: "list[torch.Tensor]",
        known: "torch.Tensor",
        generator: "torch.Generator",
    ) -> "torch.Tensor":
        if self._tail is not None:
            dropout, layers = self._tail
            (given,) = features
            logits = self._model.forward(dropout.of(given.float(), generator), layers)
            # A network may enlarge by a whole factor what has one size, and by another factor what has another size.
            if logits.shape[1:] == known.shape:
                return logits
        with active_dropout(generator):
            return self._model.forward(image, self._run)

    def _run(self, batch: "torch.Tensor") -> "torch.Tensor":
        return self._model.run(self._model.module, batch).float()


def _scoring_layer(model: TorchModel) -> LastLayer:
    """In the network that is run for inference."""
    import torch

    model.module.eval()
    with torch.inference_mode():
        batch = model.batch([_noise(model.canvas.size)])
        with watched_convolutions(model.graph.network(model.device), _outputs(model)) as calls:
            model.forward(batch)
    if not calls:
        raise ModelError(
            f'model "{model.name}": no convolution of its network (kind "{model.settings.kind}") gives the '
            f"{len(model.own_classes)} class scores, so there are no features to compare images by"
        )
    return LastLayer(calls[-1].layer)


def _outputs(model: TorchModel) -> set[int]:
    """How many channels the scores of its classes may have: a network of two classes may score the second alone."""
    classes = len(model.own_classes)
    return {1, 2} if classes == 2 else {classes}


def _no_information(model: TorchModel, passes: int) -> str:
    if not passes:
        return "BALD was not asked for"
    return (
        f'model "{model.name}" has no dropout above 0 that is at work in training, so its answers do not vary; BALD '
        "needs a network with dropout"
    )


def _uncertainty(logits: "torch.Tensor") -> tuple[float, float]:
    """Mean entropy and mean margin of (C, h, w) logits."""
    import torch

    probabilities = logits.softmax(0)
    entropy = torch.special.entr(probabilities).sum(0).mean()
    first, second = probabilities.topk(2, 0).values
    return float(entropy), float((first - second).mean())


def _embedding(features: "list[torch.Tensor]", seen: Size, content: Size) -> NDArray[np.float32]:
    """(d,) of length 1: the mean over the content; over all of all windows, for a network that slides one."""
    import torch

    if len(features) == 1:
        cells = _content_cells(features[0], seen, content)
        mean = features[0][0, :, : cells[0], : cells[1]].float().mean((1, 2))
    else:
        mean = torch.stack([one[0].float().mean((1, 2)) for one in features]).mean(0)
    embedding: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=0).cpu().numpy()
    return embedding


def _content_cells(of: "torch.Tensor", seen: Size, content: Size) -> Size:
    """How many rows and columns of a (n, C, h, w) over `seen` pixels have their centre in the content; 1 at least."""
    rows, columns = (
        max(1, math.ceil(count * inside / whole - 0.5))
        for count, whole, inside in zip(of.shape[2:], seen, content, strict=True)
    )
    return rows, columns


def _noise(size: Size) -> NDArray[np.uint8]:
    """An image in which no two places look the same, so that no two tensors are equal by chance."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def _enlarging(scores: "torch.Tensor", logits: "torch.Tensor") -> "Function | None":
    """What makes `logits` of `scores`: nothing, or a bilinear enlarging by a whole factor; None for anything else."""
    from torch.nn import functional

    factor = logits.shape[-1] // scores.shape[-1]
    if factor <= 1:
        return (lambda given: given) if _is_same(scores, logits) else None
    for aligned in (True, False):
        enlarge = partial(functional.interpolate, scale_factor=factor, mode="bilinear", align_corners=aligned)
        if _is_same(enlarge(scores), logits):
            return enlarge
    return None


def _is_same(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    import torch

    return one.shape == other.shape and torch.equal(one, other) and bool(one.any())
