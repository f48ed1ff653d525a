"""Whose answers a new version is held to: the version before, alone or averaged with competing models."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional

from mad_backend.core.labels import VOID
from mad_backend.errors import TrainingError
from mad_backend.models.graph import InferenceGraph
from mad_backend.models.mmseg_model import MmsegModel, head_logits
from mad_backend.models.torch_model import TorchModel
from training.finetuning.answers import AnswerStore, answerer, key_of
from training.finetuning.losses import sampled, two_or_more
from training.finetuning.transforms import own_ids

LEAST = 1e-6
"""Of a probability, whose logarithm is taken."""


@dataclass(frozen=True)
class Points:
    """Where answers are compared: every `stride`-th pixel of `inputs` (H, W); for 1 the student's `logits` (h, w)."""

    inputs: tuple[int, int]
    logits: tuple[int, int]
    stride: int = 1

    def of(self, logits: torch.Tensor, *, align_corners: bool) -> torch.Tensor:
        """(n, C, h', w') of logits (n, C, h, w) of any resolution, bilinear."""
        if self.stride > 1:
            return sampled(logits.float(), self.inputs, self.stride, align_corners=align_corners)
        if tuple(logits.shape[-2:]) == self.logits:
            return logits
        return functional.interpolate(
            logits.float(), size=self.logits, mode="bilinear", align_corners=align_corners
        )


class Teacher(Protocol):
    """Whoever answers images for the new version to follow."""

    def answers(self, inputs: torch.Tensor, points: Points, *, mirrored: bool = False) -> torch.Tensor:
        """(n, C, h', w') logits or log-probabilities at `points` of a (n, 3, H, W) batch as the student is given it.

        C are the student's outputs. `mirrored`: as answered in a mirror, and turned back.
        """
        ...


class FrozenTeacher:
    """A model as it is when this is made, in inference mode; it shares nothing with the one that is trained on."""

    def __init__(self, model: TorchModel, store: AnswerStore | None = None) -> None:
        key = answerer(model) if store else ""
        self._runner = _Runner(model, deepcopy(model.module).eval(), store, key)

    def answers(self, inputs: torch.Tensor, points: Points, *, mirrored: bool = False) -> torch.Tensor:
        return self._runner.logits(inputs, points, mirrored=mirrored)


class CompetingTeacher:
    """Another model of the same classes, asked as its own settings say but for its canvas, which is the student's.

    Probabilities of outputs that mean the same class are added, those of no class of the student's left out. Raises
    TrainingError where it cannot answer a class that the student can.
    """

    def __init__(self, model: TorchModel, student: TorchModel, store: AnswerStore | None = None) -> None:
        missing = student.class_ids - model.class_ids
        if missing:
            names = ", ".join(student.labels.names[i] for i in sorted(missing))
            raise TrainingError(
                f'the model "{model.name}" cannot teach the target: it has no output for {names}; leave it out of '
                "training.distillation.teachers"
            )
        self._model, self._student = model, student
        key = answerer(model, student.mean, student.std, student.is_bgr) if store else ""
        self._runner = _Runner(model, model.module, store, key, self._renormalised)
        own = own_ids(student)
        self._outputs = torch.zeros(len(student.own_classes), max(2, len(model.own_classes)))
        for output, label in enumerate(model.table[: len(model.own_classes)]):
            if own[label] != VOID:
                self._outputs[own[label], output] = 1

    def answers(self, inputs: torch.Tensor, points: Points, *, mirrored: bool = False) -> torch.Tensor:
        shares = two_or_more(self._runner.logits(inputs, points, mirrored=mirrored)).softmax(1)
        known = torch.einsum("oc,nchw->nohw", self._outputs.to(shares.device), shares)
        return (known / known.sum(1, keepdim=True).clamp(min=LEAST)).clamp(min=LEAST).log()

    def _renormalised(self, inputs: torch.Tensor) -> torch.Tensor:
        """From the student's mean, std and order of channels to this model's own."""
        given, own = self._student, self._model
        pixels = inputs.float() * _channels(given.std, inputs) + _channels(given.mean, inputs)
        if given.is_bgr != own.is_bgr:
            pixels = pixels.flip(1)
        batch = (pixels - _channels(own.mean, inputs)) / _channels(own.std, inputs)
        if own.canvas.fit == "stretch":
            batch = functional.interpolate(batch, size=own.canvas.size, mode="bilinear", antialias=True)
        return batch


class MeanTeacher:
    """The mean of several teachers' probabilities, each of the image alone, or with its mirror image."""

    def __init__(self, members: Sequence[Teacher], *, mirror: bool) -> None:
        self._members = members
        self._views = (False, True) if mirror else (False,)

    def answers(self, inputs: torch.Tensor, points: Points, *, mirrored: bool = False) -> torch.Tensor:
        views = [
            two_or_more(member.answers(inputs, points, mirrored=mirrored != view).float()).softmax(1)
            for member in self._members
            for view in self._views
        ]
        return (sum(views[1:], views[0]) / len(views)).clamp(min=LEAST).log()


def teacher_of(
    student: TorchModel, others: Sequence[TorchModel], *, mirror: bool, store: AnswerStore | None = None
) -> Teacher:
    """The student as it is now, alone or as one of several; what they answered is kept in `store`."""
    own = FrozenTeacher(student, store)
    if not others and not mirror:
        return own
    return MeanTeacher([own, *(CompetingTeacher(other, student, store) for other in others)], mirror=mirror)


class _Runner:
    """A network in inference mode, wherever the images are, which is asked once about each where there is a store.

    `key` is the network's there; `prepare` makes its input of the student's.
    """

    def __init__(
        self,
        model: TorchModel,
        module: torch.nn.Module,
        store: AnswerStore | None,
        key: str,
        prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._module = module
        self._align_corners = model.align_corners
        self._store, self._key, self._prepare = store, key, prepare
        forward = head_logits if isinstance(model, MmsegModel) else model.run
        self._graph = InferenceGraph(model.name, module, forward, model.canvas.size, model.settings.precision)

    def logits(self, inputs: torch.Tensor, points: Points, *, mirrored: bool) -> torch.Tensor:
        """(n, C, h', w') float32 at `points` of a (n, 3, H, W) batch; `mirrored` as in `Teacher`."""
        if self._store is None:
            return self._at(points, self._asked(inputs, mirrored=mirrored), mirrored=mirrored)
        digests = self._store.digests(inputs, mirrored=mirrored)
        # Batches of one: a slice has the strides of its batch, by which convolutions choose how to sum.
        answers = [
            self._recalled(self._store, inputs[n : n + 1], digest, points, mirrored=mirrored)
            for n, digest in enumerate(digests)
        ]
        return torch.cat(answers)

    def _recalled(
        self, store: AnswerStore, image: torch.Tensor, digest: str, points: Points, *, mirrored: bool
    ) -> torch.Tensor:
        """(1, C, h', w') at `points`: from the logits that are kept, or from those at the points where these are fewer.

        What was asked just now passes the same operations as what is kept.
        """
        whole, sampled = key_of(self._key, digest), key_of(self._key, digest, points, mirrored)
        kept = store.get(whole)
        if kept is not None:
            return self._at(points, torch.from_numpy(kept).to(image.device), mirrored=mirrored)
        kept = store.get(sampled)
        if kept is not None:
            return torch.from_numpy(kept).to(image.device)
        seen = self._asked(image, mirrored=mirrored)
        found = self._at(points, seen, mirrored=mirrored)
        if math.prod(seen.shape[-2:]) <= math.prod(found.shape[-2:]):
            store.put(whole, seen.cpu().numpy())
        else:
            store.put(sampled, found.cpu().numpy())
        return found

    def _asked(self, inputs: torch.Tensor, *, mirrored: bool) -> torch.Tensor:
        """(n, C, h, w) float32 logits of a (n, 3, H, W) batch, or of its mirror image."""
        self._module.to(inputs.device)
        devices = [inputs.device] if inputs.device.type == "cuda" else []
        # Some heads draw random numbers, which shall be the student's whether it was resumed or not.
        with torch.random.fork_rng(devices=devices), torch.autocast(inputs.device.type, enabled=False):
            torch.manual_seed(0)
            batch = inputs.detach().float()
            batch = self._prepare(batch) if self._prepare else batch
            answer = self._graph(batch.flip(-1) if mirrored else batch)
        # An inference tensor cannot be kept for the student's backward pass.
        return answer.clone(memory_format=torch.contiguous_format)

    def _at(self, points: Points, answer: torch.Tensor, *, mirrored: bool) -> torch.Tensor:
        """At `points`, turned back if the answer is of a mirror image; in one order of memory, by which sums round."""
        turned = answer.flip(-1) if mirrored else answer
        return points.of(turned, align_corners=self._align_corners).contiguous()


def _channels(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None, None]
