"""Settings of `mad simulate`: what people cost and get wrong, and how labelled images are dealt out."""

from typing import Self

from pydantic import Field, model_validator

from mad_backend.settings.section import Section


class OracleSettings(Section):
    """People who know the truth, and err as people do.

    Raters: `noise` is the standard deviation of an impression of quality in mIoU, `bias` that of a rater's leaning;
    in a share of `mistakes` the answer is any. Annotators: outlines are off by up to `boundary` pixels, and in a share
    of `confusion` an object of the image gets another class. Seconds are medians; a single one varies by half.

    `mask_s` is what full supervision of a PASCAL VOC image took, 239.7 s (Bearman et al. 2016, Sec. 5.2).
    """

    noise: float = Field(0.06, ge=0, le=1)
    bias: float = Field(0.03, ge=0, le=1)
    mistakes: float = Field(0.0, ge=0, le=1)
    boundary: int = Field(0, ge=0, le=50)
    confusion: float = Field(0.0, ge=0, le=1)
    rating_s: float = Field(5.0, gt=0)
    mask_s: float = Field(240.0, gt=0)


class SplitSettings(Section):
    """Shares of the pool's labelled images that become S(0) and T(0); the rest is the pool."""

    s0: float = Field(gt=0, lt=1)
    t0: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _leaves_a_pool(self) -> Self:
        if self.s0 + self.t0 >= 1:
            raise ValueError(f"s0 {self.s0} and t0 {self.t0} leave nothing for the pool; wanted less than 1")
        return self


class SimulationSettings(Section):
    """`open_share` of the pool is W: drawn at random, never chosen, it tells what the open world gained.

    `split` deals out the images of `pool` where there are no s0 and t0. `duel`: images of a duel (App. A).
    """

    open_share: float = Field(0.2, gt=0, lt=1)
    duel: int = Field(30, ge=1)
    split: SplitSettings | None = None
    oracle: OracleSettings = OracleSettings()
