"""Settings of the cost ledger, and of the rule that starts no further round."""

from pydantic import Field

from mad_backend.settings.section import Section


class CostSettings(Section):
    """How people's time is counted (`mad costs`).

    `idle_s`: a piece of work counts for at most so many seconds; null: for five times the person's median. `good`: the
    MOS from which on the target was right after all. `per_hour`: what an hour of anybody's work costs, in `currency`;
    null: hours only.
    """

    idle_s: float | None = Field(None, gt=0)
    good: float = Field(4.0, ge=1, le=5)
    per_hour: float | None = Field(None, ge=0)
    currency: str = Field("", max_length=8)


class StopSettings(Section):
    """When `mad schedule` starts no further round by itself; null: not for this reason.

    `mos`: the n4-th image of the last S, in the order of MOS, is rated above it. `points_per_hour`: each of the last
    `rounds` rounds gained fewer points of mIoU on its own T per hour of people's work.
    """

    mos: float | None = Field(3.0, ge=1, le=5)
    points_per_hour: float | None = None
    rounds: int = Field(1, ge=1)
