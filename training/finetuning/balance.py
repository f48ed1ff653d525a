"""How often each class is seen in what is learnt, and the weights that even it out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import LabelSet
from mad_backend.errors import TrainingError
from mad_backend.models.torch_model import TorchModel
from mad_backend.settings import TrainingSettings
from training.finetuning.samples import Sample

log = logging.getLogger(__name__)

MOST_COUNTED = 1000
"""Images of S(0) whose label maps are read; the shares of more change in the third digit."""
RARE = 1e-3
"""Share of the pixels of S below which a class is called rare: in half of a batch of 513 x 513 a patch of 16 x 16."""
CLIP = 10.0
"""How far a balanced weight may be from that of a class of average frequency."""


@dataclass(frozen=True)
class ClassShares:
    """Of one set of images: share of its known pixels and of its images that each class has, by name."""

    images: int
    by_pixels: dict[str, float]
    by_images: dict[str, float]


@dataclass(frozen=True)
class ClassBalance:
    """Classes in S and in S(0); `missing` are not in S at all, `rare` are less than 0.1 % of its pixels."""

    failures: ClassShares
    replay: ClassShares
    missing: tuple[str, ...]
    rare: tuple[str, ...]


def class_balance(
    failures: Sequence[Sample], replay: Sequence[Sample], labels: LabelSet, seed: int
) -> ClassBalance:
    """Counts label maps at their own size, of S(0) up to `MOST_COUNTED` drawn by `seed`; logs one line, or two."""
    own = _shares(failures, labels)
    if len(replay) > MOST_COUNTED:
        drawn = np.random.default_rng(seed).permutation(len(replay))[:MOST_COUNTED]
        replay = [replay[n] for n in sorted(drawn.tolist())]
    missing = tuple(name for name, share in own.by_pixels.items() if share == 0)
    rare = tuple(name for name, share in own.by_pixels.items() if 0 < share < RARE)
    told = sorted(own.by_pixels.items(), key=lambda item: -item[1])
    log.info(
        "S has %d images: %s",
        len(failures),
        ", ".join(f"{name} {share:.1%}" for name, share in told if share > 0),
    )
    if missing or rare:
        log.warning(
            "S has nothing of %s, and less than %g %% of %s: such classes are held by S(0) and distillation alone",
            ", ".join(missing) or "no class",
            100 * RARE,
            ", ".join(rare) or "any other",
        )
    return ClassBalance(own, _shares(replay, labels), missing, rare)


def balanced(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,) weights inverse to `shares` of pixels, within a factor `CLIP` of the average, of mean 1 over pixels.

    A class of no pixel gets what the rarest may get.
    """
    present = shares > 0
    raw = np.full(len(shares), CLIP)
    raw[present] = np.clip(1 / (shares[present] * present.sum()), 1 / CLIP, CLIP)
    weights: NDArray[np.float64] = raw * (shares.sum() / (shares * raw).sum())
    return weights


def class_weights(
    model: TorchModel,
    settings: TrainingSettings,
    failures: Sequence[Sample],
    replay: Sequence[Sample],
    seed: int,
) -> tuple[float, ...] | None:
    """The loss's weight of each output of the network; None where all weigh the same.

    `balanced`: by the pixels of S and S(0), mixed as batches mix them. Weights by name are taken as they are, 1 where
    none is given; raises TrainingError for a name that the label set does not have.
    """
    labels, wanted = model.labels, settings.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        counted = class_balance(failures, replay, labels, seed)
        new, old = (
            np.array([part.by_pixels[name] for name in labels.names])
            for part in (counted.failures, counted.replay)
        )
        by_class = balanced((1 - settings.replay) * new + settings.replay * old)
    else:
        unknown = sorted(set(wanted) - set(labels.names))
        if unknown:
            raise TrainingError(
                f'training.class_weights names {", ".join(unknown)}; label set "{labels.name}" has '
                f"{', '.join(labels.names)}"
            )
        by_class = np.array([wanted.get(name, 1.0) for name in labels.names])
    return tuple(
        float(by_class[i]) if i < len(labels) else 1.0 for i in model.table[: len(model.own_classes)]
    )


def _shares(samples: Sequence[Sample], labels: LabelSet) -> ClassShares:
    pixels, images = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for sample in samples:
        counts = np.bincount(sample.truth.read().ravel(), minlength=256)
        pixels += counts
        images += counts > 0
    known = max(1, int(pixels[: len(labels)].sum()))
    return ClassShares(
        len(samples),
        {name: int(pixels[i]) / known for i, name in enumerate(labels.names)},
        {name: int(images[i]) / max(1, len(samples)) for i, name in enumerate(labels.names)},
    )
