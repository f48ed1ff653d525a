"""What is minimised: cross-entropy on human label maps, and the distance from a teacher's answers."""

from functools import lru_cache

import torch
from torch.nn import functional

from mad_backend.core.labels import VOID


def cross_entropy(
    logits: torch.Tensor,
    truth: torch.Tensor,
    *,
    align_corners: bool,
    weights: torch.Tensor | None = None,
    stride: int = 1,
) -> torch.Tensor:
    """Scalar: mean over the pixels of `truth` (n, H, W) int64 other than void, 0 where there is none (Sec. 4.1).

    `logits` (n, C, h, w) are brought to (H, W) bilinearly; one output is a score of the second class of two. `weights`
    (C,) by class, as in PyTorch: a mean weighted by them. `stride` takes every n-th pixel of both sides.
    """
    logits = two_or_more(logits.float())
    size = (truth.shape[-2], truth.shape[-1])
    if stride > 1:
        scores = sampled(logits, size, stride, align_corners=align_corners)
        truth = truth[:, ::stride, ::stride]
    else:
        scores = functional.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)
    total = functional.cross_entropy(scores, truth, weight=weights, ignore_index=VOID, reduction="sum")
    return total / pixel_weights(truth, weights).clamp(min=1e-12)


def pixel_weights(truth: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Scalar float: the sum of `weights` (C,) over the pixels of `truth` int64 that are not void; of 1 where None."""
    known = truth != VOID
    if weights is None:
        return known.sum().float()
    return (weights[truth.masked_fill(~known, 0)] * known).sum()


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """(n, h, w): KL(teacher || student) per pixel of softmax(logits / T), times T^2 (Hinton et al. 2015, Sec. 2).

    Both are (n, C, h, w) logits; log-probabilities are such. T^2 keeps the gradients' size whatever T is.
    """
    own, given = (
        functional.log_softmax(two_or_more(logits.float()) / temperature, 1) for logits in (student, teacher)
    )
    return functional.kl_div(own, given, reduction="none", log_target=True).sum(1) * temperature**2


def two_or_more(logits: torch.Tensor) -> torch.Tensor:
    """(n, C, h, w) with C >= 2: of one output the first of two classes scores 0."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def sampled(logits: torch.Tensor, size: tuple[int, int], stride: int, *, align_corners: bool) -> torch.Tensor:
    """Every n-th row and column of what bilinear upsampling to `size` gives, without the others."""
    device = str(logits.device)
    rows, columns = (
        _interpolation(short, long, stride, align_corners, device)
        for short, long in zip(logits.shape[-2:], size, strict=True)
    )
    return rows @ logits @ columns.T


@lru_cache(maxsize=64)
def _interpolation(short: int, long: int, stride: int, align_corners: bool, device: str) -> torch.Tensor:
    """(ceil(long / stride), short) float32: rows of the matrix that interpolates `short` values to `long`."""
    unit = torch.eye(short)[None]
    full = functional.interpolate(unit, size=long, mode="linear", align_corners=align_corners)
    return full[0].T[::stride].contiguous().to(device)
