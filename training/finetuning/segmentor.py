"""Networks of any kind as mmengine sees them: pre-processing, logits, losses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModel

from mad_backend.core.labels import VOID
from mad_backend.errors import TrainingError
from mad_backend.models.mmseg_model import MmsegModel, head_logits, last_head, quietly
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings
from training.finetuning.distillation import Distiller
from training.finetuning.losses import cross_entropy, pixel_weights
from training.finetuning.whole_batch import mmseg_count


def runnable(
    model: TorchModel,
    settings: TrainingSettings,
    weights: Sequence[float] | None = None,
    distiller: Distiller | None = None,
) -> Any:
    """An mmengine BaseModel over the adapter's own module, so that training changes what `predict` uses.

    An mmsegmentation model is that itself, with its own losses, unless it has a teacher. `weights` are the loss's for
    each output.
    """
    if is_channels_last(model, settings):
        model.module.to(memory_format=torch.channels_last)
    if not isinstance(model, MmsegModel):
        return LogitsSegmentor(model, settings, weights, distiller)
    if weights is not None:
        _weigh_heads(model, weights)
    return DistilledSegmentor(model, distiller) if distiller else model.module


def is_channels_last(model: TorchModel, settings: TrainingSettings) -> bool:
    """Whether images and weights lie so in memory."""
    if settings.channels_last is not None:
        return settings.channels_last
    return model.device.type == "cpu" or settings.precision != "fp32"


class LogitsSegmentor(BaseModel):  # type: ignore[misc]
    """A network that gives logits, of any library, with mmsegmentation's pre-processing.

    Its `loss`, the cross-entropy of Sec. 4.1, is taken at full resolution and ignores void (255); logits are upsampled
    as in `TorchModel.predict`.
    """

    def __init__(
        self,
        model: TorchModel,
        settings: TrainingSettings,
        weights: Sequence[float] | None = None,
        distiller: Distiller | None = None,
    ) -> None:
        with quietly():
            from mmseg.utils import register_all_modules

            register_all_modules(init_default_scope=True)
        crop = (settings.crop, settings.crop) if settings.crop else model.canvas.size
        super().__init__(
            data_preprocessor={
                "type": "SegDataPreProcessor",
                "mean": model.mean,
                "std": model.std,
                "bgr_to_rgb": not model.is_bgr,
                "pad_val": 0,
                "seg_pad_val": VOID,
                **({"size": crop} if model.canvas.fit == "pad" else {"size_divisor": 1}),
            }
        )
        self.network = model.module
        self._adapter = [model]  # in a list, so that the adapter is not taken for a sub-module
        self._settings = settings
        self._weights = None if weights is None else torch.tensor(weights)
        self._distiller = distiller

    def forward(self, inputs: torch.Tensor, data_samples: list[Any], mode: str = "tensor") -> Any:
        """{"loss_ce": cross-entropy, ...} in mode "loss", logits (n, C, h, w) otherwise."""
        model = self._adapter[0]
        if is_channels_last(model, self._settings):
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        logits = model.logits(inputs)
        if mode != "loss":
            return logits
        labelled = [k for k, sample in enumerate(data_samples) if self._learns(sample)]
        # A part of a batch may have none; processes compare their losses by name.
        losses = {"loss_ce": logits.sum() * 0}
        if labelled:
            truth = torch.stack([data_samples[k].gt_sem_seg.data.squeeze(0) for k in labelled]).long()
            losses["loss_ce"] = cross_entropy(
                logits if len(labelled) == len(logits) else logits[labelled],
                truth,
                align_corners=model.align_corners,
                weights=None if self._weights is None else self._weights.to(inputs.device),
                stride=self._settings.loss_stride,
            )
        if self._distiller:
            losses["loss_ce"] = losses["loss_ce"] * self._distiller.labels
            losses |= self._distiller.losses(logits, inputs, data_samples)
        return losses

    def loss_counts(self, data_samples: list[Any]) -> dict[str, torch.Tensor]:
        """By loss, the sum of weights that its mean is over: see `whole_batch`."""
        stride = self._settings.loss_stride
        truths = [
            sample.gt_sem_seg.data[..., ::stride, ::stride].long()
            for sample in data_samples
            if self._learns(sample)
        ]
        device = data_samples[0].gt_sem_seg.data.device
        weights = None if self._weights is None else self._weights.to(device)
        counted = [pixel_weights(truth, weights) for truth in truths]
        count = torch.stack([torch.zeros((), device=device), *counted]).sum()
        return {"loss_ce": count, **(self._distiller.counts(data_samples) if self._distiller else {})}

    def _learns(self, sample: Any) -> bool:
        return self._distiller is None or self._distiller.learns(sample)


class DistilledSegmentor(BaseModel):  # type: ignore[misc]
    """An mmsegmentation model with its own losses on labelled images, and a teacher's on those that settings name.

    The student's logits are those that its head's loss was given: nothing is computed twice. Only heads whose loss is
    of another make answer again, as they predict.
    """

    def __init__(self, model: MmsegModel, distiller: Distiller) -> None:
        super().__init__(data_preprocessor=model.module.data_preprocessor)
        self.network = model.module
        self._distiller = distiller

    def forward(self, inputs: torch.Tensor, data_samples: list[Any], mode: str = "tensor") -> Any:
        """The network's losses and the teacher's in mode "loss", else what the network answers."""
        if mode != "loss":
            return self.network(inputs, data_samples, mode)
        # What is not learnt on its own: losses of mmsegmentation are means over all pixels, void ones too.
        labelled = [k for k, sample in enumerate(data_samples) if self._distiller.learns(sample)]
        others = [k for k in range(len(data_samples)) if k not in labelled]
        losses: dict[str, Any] = {}
        logits = []
        if labelled:
            with _given_logits(last_head(self.network)) as seen:
                known = [data_samples[k] for k in labelled]
                told = self.network(inputs[labelled], known, mode="loss")
            losses |= {name: _scaled(name, value, self._distiller.labels) for name, value in told.items()}
            logits.append(seen[0] if seen else head_logits(self.network, inputs[labelled]))
        if others:
            logits.append(head_logits(self.network, inputs[others]))
        order = labelled + others
        ordered = [data_samples[k] for k in order]
        return losses | self._distiller.losses(torch.cat(logits), inputs[order], ordered)

    def loss_counts(self, data_samples: list[Any]) -> dict[str, torch.Tensor]:
        """By loss, what its mean is over; the network's own go by its first one."""
        labelled = [sample for sample in data_samples if self._distiller.learns(sample)]
        counts = self._distiller.counts(data_samples)
        return counts | {"": mmseg_count(self.network, labelled)} if labelled else counts


def _scaled(name: str, value: Any, factor: float) -> Any:
    """A loss of mmsegmentation's, a tensor or several; what else it tells stays."""
    if "loss" not in name:
        return value
    return [one * factor for one in value] if isinstance(value, list) else value * factor


@contextmanager
def _given_logits(head: Any) -> Iterator[list[torch.Tensor]]:
    """The logits that `head` takes its loss of while this lasts; none where that is not (n, C, h, w) of all outputs."""
    seen: list[torch.Tensor] = []
    own = head.loss_by_feat

    def loss_by_feat(logits: Any, *given: Any, **named: Any) -> Any:
        if isinstance(logits, torch.Tensor) and logits.ndim == 4 and logits.shape[1] == head.out_channels:
            seen.append(logits)
        return own(logits, *given, **named)

    head.loss_by_feat = loss_by_feat
    try:
        yield seen
    finally:
        del head.loss_by_feat


def _weigh_heads(model: MmsegModel, weights: Sequence[float]) -> None:
    """Gives every loss of an mmsegmentation model these class weights instead of its configuration's."""
    losses = [part for part in model.module.modules() if hasattr(part, "class_weight")]
    if not losses or int(model.module.out_channels) != len(weights):
        raise TrainingError(
            f'the losses of the target "{model.name}" take no weight for each of {len(weights)} classes; leave '
            "training.class_weights at none, or give weights in the mmsegmentation configuration"
        )
    for loss in losses:
        loss.class_weight = list(weights)
