"""mmsegmentation's accuracy of a training batch, in a tenth of the time."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

HEADS = ("decode_head", "ddr_head", "pid_head")
"""Modules of mmseg.models.decode_heads that measure accuracy in every step, only to log it."""


@contextmanager
def quick_accuracy() -> Iterator[None]:
    """While this lasts, heads call `pixel_accuracy`: theirs takes a fifth of a small network's step."""
    modules: list[Any] = [importlib.import_module(f"mmseg.models.decode_heads.{name}") for name in HEADS]
    theirs = [module.accuracy for module in modules]
    for module, function in zip(modules, theirs, strict=True):
        module.accuracy = _quick_where_plain(function)
    try:
        yield
    finally:
        for module, function in zip(modules, theirs, strict=True):
            module.accuracy = function


def pixel_accuracy(logits: torch.Tensor, truth: torch.Tensor, ignore: int) -> torch.Tensor:
    """(1,) float, per cent of the pixels other than `ignore` whose true class has the highest logit.

    `logits` (n, C, h, w) float, `truth` (n, h, w) int64. The true class wins a tie.
    """
    counted = truth != ignore
    own = logits.gather(1, truth.masked_fill(~counted, 0).unsqueeze(1)).squeeze(1)
    right = ((own >= logits.amax(1)) & counted).sum()
    return (100.0 * right / counted.sum().clamp(min=1)).reshape(1)


def _quick_where_plain(theirs: Any) -> Any:
    """`theirs`, which also takes ranks and thresholds, where anything but the plain question is asked."""

    def accuracy(pred: torch.Tensor, target: torch.Tensor, *more: Any, **asked: Any) -> Any:
        ignore = asked.get("ignore_index")
        is_plain = not more and set(asked) == {"ignore_index"} and pred.ndim == 4 and pred.shape[1] > 1
        if not (is_plain and isinstance(ignore, int)):
            return theirs(pred, target, *more, **asked)
        return pixel_accuracy(pred.detach(), target, ignore)

    return accuracy
