"""Settings of the method: M, S, T, fine-tuning, evaluation and the gate."""

from enum import StrEnum

from pydantic import Field

from mad_backend.core.records import Metric
from mad_backend.settings.section import Section


class SelectionSettings(Section):
    """M (Sec. 3.1). `windows` gives [p_k, q_k] by class name instead of the training images' quartiles.

    `near_duplicates`: images whose 64-bit perceptual hashes differ in at most so many bits are one and the same; null:
    off, as in the paper.
    """

    metric: Metric = Metric.MIOU
    n3: int = Field(25, ge=1)
    windows: dict[str, tuple[float, float]] = Field(default_factory=dict)
    near_duplicates: int | None = Field(None, ge=0, le=16)


class TestSetSettings(Section):
    """T (Sec. 4.1); `per_class` null lifts the cap on images with the same main foreground object."""

    size: int = Field(30, ge=1)
    per_class: int | None = Field(4, ge=1)


class ValidationMode(StrEnum):
    """`split`: T(0) is halved, one half chooses epoch and rate, the other is reported. `paper`: T(0) does both."""

    SPLIT = "split"
    PAPER = "paper"


class TrainingSettings(Section):
    """Fine-tuning (Sec. 4.1, "Model rectification"); defaults are the paper's."""

    learning_rates: tuple[float, ...] = Field((1e-5, 5e-5, 1e-4), min_length=1)
    epochs: int = Field(80, ge=1)
    batch_size: int = Field(2, ge=2, multiple_of=2)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    poly_power: float = Field(0.9, gt=0)
    freeze_batch_norm: bool | None = Field(None, description="null: frozen at batch size 4 or less")
    validation: ValidationMode = ValidationMode.SPLIT
    crop: int | None = Field(None, description="side of random training crops; null: whole images")
    horizontal_flip: bool = True
    threads: int | None = Field(None, ge=1)


class EvaluationSettings(Section):
    """mIoU is averaged over `classes`, by name; empty: over all present. For sets where the others are too rare."""

    classes: tuple[str, ...] = ()


class PromotionSettings(Section):
    """f(i) is served only if T(0) fell by at most `max_t0_loss` (mIoU, 0..1) and T(1..i) did not fall."""

    max_t0_loss: float = Field(0.01, ge=0)
