"""Typed settings: one YAML file, and the environment for addresses and secrets only."""

import difflib
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mad_backend.core.grid import Fit
from mad_backend.core.labels import LabelClass, LabelSet
from mad_backend.core.records import Metric
from mad_backend.errors import SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class GridSettings(_Section):
    """The evaluation grid on which models predict and are compared (Sec. 4.1)."""

    size: int = Field(513, ge=16, le=4096)
    fit: Fit = Fit.LETTERBOX


class SourceSettings(_Section):
    """Images: every image below `images`, or those named in the text file `list` (one id a line, no suffix).

    `name` prefixes image ids ("voc/2007_000033"). `masks` holds label maps as index PNGs of the same id; those of the
    pool are known to the simulated raters and annotators only.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    images: Path
    list: Path | None = None
    masks: Path | None = None


class ModelSettings(_Section):
    """One model. `path` is its checkpoint, folder of weights or folder of label maps, by kind."""

    kind: str
    path: Path
    config: Path | None = None
    input_size: int | None = Field(None, description="side of the square canvas; default: the grid's")
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    pad: Literal["square", "none"] = "square"
    align_corners: bool = False
    batch_size: int = Field(4, ge=1)
    classes: dict[str, str] = Field(default_factory=dict)
    own_classes: tuple[str, ...] | None = None


class ModelsSettings(_Section):
    """The target and who it competes with; `name` is the target's, versions are `name@0`, `name@1`, ..."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    target: ModelSettings
    competing: dict[str, ModelSettings] = Field(min_length=1)


class SelectionSettings(_Section):
    """M (Sec. 3.1). `windows` gives [p_k, q_k] by class name instead of the training images' quartiles."""

    metric: Metric = Metric.MIOU
    n3: int = Field(25, ge=1)
    windows: dict[str, tuple[float, float]] = Field(default_factory=dict)


class RatingSettings(_Section):
    """Who rates and how many images become S (Sec. 4.1); `mos_ceiling`: only images rated so or worse."""

    raters: int = Field(3, ge=1, le=20)
    n4: int = Field(100, ge=1)
    mos_ceiling: float | None = Field(None, ge=1, le=5)


class TestSetSettings(_Section):
    """T (Sec. 4.1); `per_class` null lifts the cap on images with the same main foreground object."""

    size: int = Field(30, ge=1)
    per_class: int | None = Field(4, ge=1)


class ValidationMode(StrEnum):
    """`split`: T(0) is halved, one half chooses epoch and rate, the other is reported. `paper`: T(0) does both."""

    SPLIT = "split"
    PAPER = "paper"


class TrainingSettings(_Section):
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


class EvaluationSettings(_Section):
    """mIoU is averaged over `classes`, by name; empty: over all present. For sets where the others are too rare."""

    classes: tuple[str, ...] = ()


class PromotionSettings(_Section):
    """f(i) is served only if T(0) fell by at most `max_t0_loss` (mIoU, 0..1) and T(1..i) did not fall."""

    max_t0_loss: float = Field(0.01, ge=0)


class LabelStudioSettings(_Section):
    """The server; the token comes from the environment, MAD_LABEL_STUDIO_TOKEN."""

    url: str = "http://127.0.0.1:8080"
    title: str = "MAD"


class ServeSettings(_Section):
    """Where `mad serve` listens; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = Field(9090, ge=0, le=65535)
    threads: int = Field(4, ge=1)


class ScheduleSettings(_Section):
    """`tick_s`: how often rounds are looked at. `new_round`: a cron line ("0 22 * * *"), or null for by hand."""

    tick_s: float = Field(30, gt=0)
    new_round: str | None = None
    lease_s: float = Field(120, gt=1)


class Settings(_Section):
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
    selection: SelectionSettings = SelectionSettings()
    rating: RatingSettings = RatingSettings()
    test_set: TestSetSettings = TestSetSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    promotion: PromotionSettings = PromotionSettings()
    label_studio: LabelStudioSettings = LabelStudioSettings()
    serve: ServeSettings = ServeSettings()
    schedule: ScheduleSettings = ScheduleSettings()

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.workspace / 'mad.sqlite3'}"


class Secrets(BaseSettings):
    """Addresses and secrets, from the environment only: MAD_LABEL_STUDIO_TOKEN, MAD_WEBHOOK_SECRET, ..."""

    model_config = SettingsConfigDict(env_prefix="MAD_", extra="ignore", frozen=True)

    label_studio_url: str | None = None
    label_studio_token: SecretStr | None = None
    webhook_secret: SecretStr | None = None
    database: str | None = None


def load_settings(path: Path) -> Settings:
    """Reads and checks a settings file; raises SettingsError naming file, key, what was wanted and what came."""
    raw = read_yaml(path)
    try:
        settings = Settings.model_validate(_rebased(raw, path.parent))
    except ValidationError as error:
        raise SettingsError(f"{path}: " + "; ".join(_explain(e) for e in error.errors())) from None
    database = Secrets().database
    return settings.model_copy(update={"database": database}) if database else settings


def load_label_set(path: Path) -> LabelSet:
    """Reads `name` and `classes` (name, color as "#rrggbb"); the class marked `background: true` must be first."""
    raw = read_yaml(path)
    try:
        classes = tuple(LabelClass(c["name"], _rgb(c["color"])) for c in raw["classes"])
        marked = [bool(c.get("background", False)) for c in raw["classes"]]
        name = str(raw["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f'{path}: {error!r}; wanted name and classes, each {{name: ..., color: "#rrggbb"}}'
        ) from None
    if any(marked[1:]):
        raise SettingsError(f"{path}: the background class must be the first one")
    return LabelSet(name, classes, has_background=marked[:1] == [True])


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises SettingsError when the file is missing or is something else."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}; give a settings file with --config"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: wanted a mapping at the top, got {type(raw).__name__}")
    return raw


PATH_KEYS = frozenset({"workspace", "cache", "label_set", "images", "list", "masks", "path", "config"})
NAME_TABLES = frozenset({"classes", "windows"})
"""Tables whose keys are class names, which may be spelt like a key ("path")."""


def _rebased(value: Any, root: Path) -> Any:
    """Makes every relative path of the file relative to the file's own folder."""
    if isinstance(value, dict):
        return {
            key: str((root / item).resolve())
            if key in PATH_KEYS and isinstance(item, str)
            else item
            if key in NAME_TABLES
            else _rebased(item, root)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_rebased(item, root) for item in value]
    return value


def _rgb(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}, got {error.get('input')!r}"[:300]
    known = _known_keys(Settings)
    near = difflib.get_close_matches(str(error["loc"][-1]), sorted(known), n=1)
    return f"unknown key {where}" + (f'; did you mean "{near[0]}"?' if near else "")


def _known_keys(section: type[BaseModel]) -> set[str]:
    found: set[str] = set()
    for name, field in section.model_fields.items():
        found.add(name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= _known_keys(part)
    return found
