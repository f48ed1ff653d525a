"""Learning without forgetting: the new version is held to what f(i-1) answers (Li and Hoiem 2016)."""

from collections.abc import Sequence
from typing import Any

import torch

from mad_backend.settings import TrainingSettings
from training.finetuning.losses import divergence
from training.finetuning.samples import Part
from training.finetuning.teachers import Points, Teacher


class Distiller:
    """The losses by which a student follows a teacher on the parts of a batch that settings name.

    `align_corners`: how the student's logits are upsampled. `labels` weighs what is learnt from label maps beside it.
    """

    def __init__(self, teacher: Teacher, settings: TrainingSettings, *, align_corners: bool) -> None:
        distillation = settings.distillation
        self._teacher = teacher
        self._temperature = distillation.temperature
        self._stride = settings.loss_stride
        self._align_corners = align_corners
        self._replay_labels = distillation.replay_labels
        self.labels = distillation.labels
        weights = {
            Part.FAILURES: distillation.failures,
            Part.REPLAY: distillation.replay,
            Part.POOL: distillation.pool,
        }
        self._weights = {part: weight for part, weight in weights.items() if weight > 0}

    def learns(self, sample: Any) -> bool:
        """Whether its label map is learnt, beside the teacher's answers or without them."""
        part = sample.metainfo.get("part")
        return part != Part.POOL and (part != Part.REPLAY or self._replay_labels)

    def losses(
        self, logits: torch.Tensor, inputs: torch.Tensor, samples: Sequence[Any]
    ) -> dict[str, torch.Tensor]:
        """{"loss_distil_replay": ..., ...}: weight x mean of `divergence` over the pixels of that part of a batch.

        `logits` (n, C, h, w) are the student's of `inputs` (n, 3, H, W); the mean is over the pixels of `Points`, those
        of padding excluded.
        """
        parts = [sample.metainfo.get("part") for sample in samples]
        # All of them in every batch, 0 where a batch has no such image: processes compare their losses by name.
        found = {_name(part): logits.new_zeros(()) for part in self._weights}
        followed = [k for k, part in enumerate(parts) if part in self._weights]
        if not followed:
            return found
        height, width = inputs.shape[-2:]
        points = Points((height, width), (logits.shape[-2], logits.shape[-1]), self._stride)
        own_answers = points.of(logits[followed], align_corners=self._align_corners)
        given = self._teacher.answers(inputs[followed], points)
        distances = divergence(own_answers, given, self._temperature)
        contents = [_content(samples[k], inputs.shape[-2:], distances.shape[-2:]) for k in followed]
        for part, weight in self._weights.items():
            own = [
                distance[:rows, :columns].flatten()
                for k, distance, (rows, columns) in zip(followed, distances, contents, strict=True)
                if parts[k] == part
            ]
            if own:
                found[_name(part)] = weight * torch.cat(own).mean()
        return found

    def counts(self, samples: Sequence[Any]) -> dict[str, torch.Tensor]:
        """By loss, how many pixels of images its mean is over."""
        counts = {
            _name(part): torch.zeros((), device=samples[0].gt_sem_seg.data.device) for part in self._weights
        }
        for sample in samples:
            part = sample.metainfo.get("part")
            if part in self._weights:
                height, width = sample.metainfo["img_shape"][:2]
                counts[_name(part)] += height * width
        return counts


def _name(part: Part) -> str:
    return f"loss_distil_{part}"


def _content(sample: Any, inputs: Sequence[int], logits: Sequence[int]) -> tuple[int, int]:
    """(height, width) in logits of what is not padding, which lies below and on the right."""
    _, right, _, below = sample.metainfo.get("padding_size", (0, 0, 0, 0))
    height, width = (
        max(1, round((size - padding) * short / size))
        for size, padding, short in zip(inputs, (below, right), logits, strict=True)
    )
    return height, width
