"""Typed settings: the sections of the one YAML file, and the environment for addresses and secrets only."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mad_backend.settings.costs import CostSettings, StopSettings
from mad_backend.settings.images import (
    CREDENTIALS,
    GridSettings,
    LabelStudioSource,
    Origin,
    Place,
    SourceSettings,
)
from mad_backend.settings.method import (
    EvaluationSettings,
    PromotionSettings,
    SelectionSettings,
    TestSetSettings,
)
from mad_backend.settings.models import (
    DEVICE,
    ModelFit,
    ModelSettings,
    ModelsSettings,
    Precision,
    RaySettings,
    ScanSettings,
)
from mad_backend.settings.people import (
    CheckSettings,
    CloudSettings,
    LabelStudioSettings,
    LocalFilesSettings,
    Media,
    RatingSettings,
    SegmentationSettings,
)
from mad_backend.settings.section import Section
from mad_backend.settings.serving import ServeSettings, TaskImagesSettings
from mad_backend.settings.simulation import OracleSettings, SimulationSettings, SplitSettings
from mad_backend.settings.training import (
    DistillationSettings,
    LauncherSettings,
    Recipe,
    TrackingSettings,
    TrainingSettings,
    ValidationMode,
)

__all__ = [
    "CREDENTIALS",
    "DEVICE",
    "CheckSettings",
    "CloudSettings",
    "CostSettings",
    "DistillationSettings",
    "EvaluationSettings",
    "GridSettings",
    "LabelStudioSettings",
    "LabelStudioSource",
    "LauncherSettings",
    "LocalFilesSettings",
    "Media",
    "ModelFit",
    "ModelSettings",
    "ModelsSettings",
    "OracleSettings",
    "Origin",
    "Place",
    "Precision",
    "PromotionSettings",
    "RatingSettings",
    "RaySettings",
    "Recipe",
    "ScanSettings",
    "ScheduleSettings",
    "Secrets",
    "SegmentationSettings",
    "SelectionSettings",
    "ServeSettings",
    "Settings",
    "SimulationSettings",
    "SourceSettings",
    "SplitSettings",
    "StopSettings",
    "TaskImagesSettings",
    "TestSetSettings",
    "TrackingSettings",
    "TrainingSettings",
    "ValidationMode",
]


class ScheduleSettings(Section):
    """`tick_s`: how often rounds are looked at. `new_round`: a cron line ("0 22 * * *"), or null for by hand."""

    tick_s: float = Field(30, gt=0)
    new_round: str | None = None
    lease_s: float = Field(120, gt=1)


class Settings(Section):
    """Everything one project needs. Relative paths are relative to the settings file."""

    workspace: Path
    cache: Path | None = Field(None, description="predictions and scores; null: in the workspace")
    database: str | None = None
    seed: int = 0
    label_set: Path
    pool: tuple[SourceSettings, ...] = Field(min_length=1)
    s0: tuple[SourceSettings, ...] = Field(min_length=1)
    t0: tuple[SourceSettings, ...] = Field(min_length=1)
    grid: GridSettings = GridSettings()
    models: ModelsSettings
    scan: ScanSettings = ScanSettings()
    selection: SelectionSettings = SelectionSettings()
    rating: RatingSettings = RatingSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    check: CheckSettings = CheckSettings()
    test_set: TestSetSettings = TestSetSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    promotion: PromotionSettings = PromotionSettings()
    label_studio: LabelStudioSettings = LabelStudioSettings()
    serve: ServeSettings = ServeSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    costs: CostSettings = CostSettings()
    stop: StopSettings = StopSettings()
    simulation: SimulationSettings = SimulationSettings()

    @model_validator(mode="after")
    def _can_serve_pictures(self) -> Self:
        if self.label_studio.media == "serve" and self.serve.public_url is None:
            raise ValueError(
                "label_studio.media serve wants serve.public_url, the address at which browsers reach `mad serve`"
            )
        return self

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.workspace / 'mad.sqlite3'}"

    @property
    def mirrors(self) -> Path:
        """Where images of Label Studio projects are mirrored, a folder per source."""
        return self.workspace / "pool"

    @property
    def pictures(self) -> Path:
        """Pictures that `mad serve` gives to browsers."""
        return self.workspace / "pictures"


class Secrets(BaseSettings):
    """Addresses and secrets, from the environment only: MAD_LABEL_STUDIO_TOKEN, MAD_WEBHOOK_SECRET, ...

    MAD_RATER_TOKENS is a JSON object, email: token, of raters whose Enter key we may set up.
    """

    model_config = SettingsConfigDict(env_prefix="MAD_", extra="ignore", frozen=True)

    label_studio_url: str | None = None
    label_studio_token: SecretStr | None = None
    webhook_secret: SecretStr | None = None
    serve_password: SecretStr | None = None
    rater_tokens: dict[str, SecretStr] = Field(default_factory=dict)
    database: str | None = None
