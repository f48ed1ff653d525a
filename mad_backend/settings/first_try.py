"""Settings of `mad finetune`: those of a project, of which a first try needs little."""

from pydantic import Field

from mad_backend.settings import ModelSettings, ModelsSettings, Settings, SourceSettings


class TargetSettings(ModelsSettings):
    """A target that need not compete yet."""

    competing: dict[str, ModelSettings] = Field(default_factory=dict)


class FirstTrySettings(Settings):
    """A project's settings without the need of a pool and of competing models; a whole project's file is one too."""

    pool: tuple[SourceSettings, ...] = ()
    s0: tuple[SourceSettings, ...] = ()
    t0: tuple[SourceSettings, ...] = ()
    models: TargetSettings
