"""Weights between those of the old version and of the new one, chosen on the dev set (Wortsman et al. 2022)."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mad_backend.models.torch_model import TorchModel
from training.finetuning.averaging import Weights
from training.finetuning.checkpoints import BEST
from training.finetuning.dev import DevScore
from training.finetuning.files import save_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """A share of the new weights, the rest the old ones', and what the dev set says of it."""

    share: float
    score: DevScore


def interpolate(
    model: TorchModel,
    old: Weights,
    shares: Sequence[float],
    measure: Callable[[TorchModel], DevScore],
    folder: Path,
) -> Mixture:
    """Puts the best mixture with the best epoch of the run in `folder` in that epoch's place; of equals the oldest.

    What was done before is not repeated; what was interrupted is. Leaves `model` with the chosen weights.
    """
    path = folder / BEST
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if "share" in saved:
        model.module.load_state_dict(saved["model"])
        return Mixture(saved["share"], DevScore(saved["benchmark"], saved["failures"]))
    found: list[Mixture] = []
    for share in sorted(set(shares)):
        model.module.load_state_dict(mixed(old, saved["model"], share))
        found.append(Mixture(share, measure(model)))
        log.info("%g of the new weights: dev mIoU %.4f", share, found[-1].score.value)
    best = max(found, key=lambda mixture: mixture.score.value)
    model.module.load_state_dict(mixed(old, saved["model"], best.share))
    best.score.write(folder)
    save_state(path, {"model": model.module.state_dict(), "share": best.share, **best.score.told()})
    return best


def mixed(old: Weights, new: Weights, share: float) -> Weights:
    """(1 - share) x old + share x new; exactly old at 0 and new at 1, counters excepted, which are the new ones."""
    return {
        name: torch.lerp(old[name].to(value.device), value, share) if value.is_floating_point() else value
        for name, value in new.items()
    }
