"""Settings of `mad simulate`: those of a project whose pool has label maps."""

from typing import Self

from pydantic import model_validator

from mad_backend.settings import Settings, SourceSettings


class SimulatedSettings(Settings):
    """A project's settings where S(0) and T(0) may be dealt out of the pool; a whole project's file is one too."""

    s0: tuple[SourceSettings, ...] = ()
    t0: tuple[SourceSettings, ...] = ()

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if bool(self.s0) != bool(self.t0) or bool(self.s0) == (self.simulation.split is not None):
            raise ValueError(
                "wanted s0 and t0, or simulation.split ({s0: 0.2, t0: 0.2}), which deals out the pool's images"
            )
        return self
