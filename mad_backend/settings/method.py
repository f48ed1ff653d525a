"""Settings of the method: M, S, T, fine-tuning, evaluation and the gate."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mad_backend.core.looks import NEAR
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
    """T (Sec. 4.1); `per_class` null lifts the cap on images with the same main foreground object.

    `size` "stable": `largest` images are drawn and kept from training, of which people label `smallest` and then `step`
    at a time, until the ranking of the models is stable (Fig. 7). `near_duplicates`: an image whose 64-bit perceptual
    hash differs in at most so many bits from a tested one's counts as that one, wherever it would be learnt, and the
    other way round; null: only equal files do.
    """

    size: Annotated[int, Field(ge=1)] | Literal["stable"] = 30
    smallest: int = Field(20, ge=1)
    largest: int = Field(60, ge=1)
    step: int = Field(5, ge=1)
    per_class: int | None = Field(4, ge=1)
    near_duplicates: int | None = Field(NEAR, ge=0, le=16)

    @property
    def drawn(self) -> int:
        """How many images are drawn from M."""
        return self.largest if self.size == "stable" else self.size

    @model_validator(mode="after")
    def _can_grow(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"test_set.smallest {self.smallest} is more than largest {self.largest}")
        return self


class EvaluationSettings(Section):
    """mIoU is averaged over `classes`, by name; empty: over all present. For sets where the others are too rare."""

    classes: tuple[str, ...] = ()


class PromotionSettings(Section):
    """f(i) is served only if all three hold; mIoU is 0..1 throughout, intervals are those of `confidence`.

    T(0) fell by at most `max_t0_loss`: by the `estimate`, or by the lower bound of the `interval`. The gain on T(1..i)
    is above `min_gain`, by the same choice. At most `max_broken` images of the failure suite broke again: lost more
    than `suite_tolerance`, which is also what counts as fixed.

    The default tolerance is three standard deviations of what two fine-tunings of one round (the demo's two learning
    rates, 2 points of mIoU apart) differed by on an image of its S(1) and T(1), 0.06. One of them had broken 8 of the
    42 images that the other fixed by more than 0.1, and none of the 16 that it fixed by more than 0.2.
    """

    max_t0_loss: float = Field(0.01, ge=0)
    t0_by: Literal["estimate", "interval"] = "estimate"
    min_gain: float = Field(0.0, ge=-1, lt=1)
    gain_by: Literal["estimate", "interval"] = "interval"
    confidence: float = Field(0.95, ge=0.5, lt=1)
    suite_tolerance: float = Field(0.2, gt=0, lt=1)
    max_broken: int = Field(0, ge=0)
