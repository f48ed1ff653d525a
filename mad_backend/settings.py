"""Typed settings: the sections of the one YAML file, and the environment for addresses and secrets only."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from mad_backend.core.grid import Fit
from mad_backend.core.records import Metric
from mad_backend.errors import SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class GridSettings(_Section):
    """The evaluation grid on which models predict and are compared (Sec. 4.1)."""

    size: int = Field(513, ge=16, le=4096)
    fit: Fit = Fit.LETTERBOX


CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS (the place of a key file)",
    "azure": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "http": "a line for the host in ~/.netrc",
}
"""Extra of this package that reads a kind of address -> where its credentials come from, never settings."""

_SECRET = re.compile("secret|key|token|passw|credential|connection_string|sas|authorization", re.IGNORECASE)
_NO_SECRETS = frozenset({"anon", "cloud", "google_default"})
"""Ways to log in that gcsfs takes as `token`."""


def _place(given: object) -> Path | str:
    """A Path for what lies on this machine; an address (s3://...) stays text, for Path would take its slashes."""
    if isinstance(given, Path):
        return given
    if not isinstance(given, str) or not given:
        raise ValueError(f"wanted a path or an address, got {given!r}")
    scheme, is_address, rest = given.partition("://")
    if not is_address or scheme == "file":
        return Path(rest if is_address else given)
    if "::" in given:
        raise ValueError("chained addresses (a::b) are not read; give one address")
    login, has_login, _ = rest.partition("/")[0].rpartition("@")
    if has_login and ":" in login:
        raise ValueError(f"a password does not belong into an address; {_where_from()}")
    return given


def _where_from() -> str:
    return "credentials come from: " + "; ".join(f"{extra}: {names}" for extra, names in CREDENTIALS.items())


Place = Annotated[Path | str, PlainValidator(_place)]
"""A `Path` on this machine, or the `str` of an address that fsspec reads."""


class LabelStudioSource(_Section):
    """A Label Studio project, or one view (tab) of it; `field` names the image where tasks have several."""

    project: int = Field(ge=1)
    view: int | None = Field(None, ge=1)
    field: str | None = None


class SourceSettings(_Section):
    """Images of one origin, named by exactly one of these keys.

    - `images`: every image below a folder or an address (s3://bucket/prefix), or those named in the text file `list`
      (one id a line, no suffix);
    - `manifest`: a .txt, .csv, .jsonl or .parquet file that names images; relative names are relative to the
      manifest's folder, or to `images` where that is given too;
    - `label_studio`: the tasks of a Label Studio project.

    `name` prefixes image ids ("voc/2007_000033"). `masks` holds label maps as index PNGs of the same id; those of the
    pool are known to the simulated raters and annotators only. `storage_options` go to the fsspec file system.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    images: Place | None = None
    list: Path | None = None
    manifest: Place | None = None
    label_studio: LabelStudioSource | None = None
    masks: Path | None = None
    storage_options: dict[str, bool | int | str] = Field(default_factory=dict)

    @field_validator("storage_options")
    @classmethod
    def _without_secrets(cls, options: dict[str, bool | int | str]) -> dict[str, bool | int | str]:
        secret = sorted(k for k, v in options.items() if _SECRET.search(k) and v not in _NO_SECRETS)
        if secret:
            raise ValueError(f'"{secret[0]}" is a secret, and secrets are not settings; {_where_from()}')
        return options

    @model_validator(mode="after")
    def _of_one_origin(self) -> Self:
        given = [key for key in ("images", "manifest", "label_studio") if getattr(self, key) is not None]
        if given not in (["images"], ["manifest"], ["images", "manifest"], ["label_studio"]):
            raise ValueError(
                f'source "{self.name}" needs one origin: images, manifest (images may say what its names are relative '
                f"to) or label_studio; got {' and '.join(given) or 'none'}"
            )
        if self.list is not None and given != ["images"]:
            raise ValueError(
                f'source "{self.name}": list chooses from a folder; a {given[-1]} names its images itself'
            )
        if given == ["images"] and str(self.images).startswith(("http://", "https://")):
            raise ValueError(
                f'source "{self.name}": a web server does not tell what it holds; name its images in a manifest'
            )
        return self


ModelFit: TypeAlias = Literal["pad", "keep", "stretch"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"


class ModelSettings(_Section):
    """One model. `path` is its checkpoint, folder of weights or folder of label maps, by kind.

    `fit`, with the frame being the image on the evaluation grid. pad: scaled down if it is larger than `input_size`, at
    the top left of a canvas of `input_size` in the mean colour. keep: scaled down if it is larger, no canvas. stretch:
    resized to `input_size`, and the answer back to the frame.
    """

    kind: str
    path: Path | None = None
    url: str | None = Field(None, description="label_studio: address of the ML backend")
    images: Literal["serve", "address"] = Field(
        "serve",
        description="label_studio: whether the backend is sent addresses of frames that we serve, or the images' own "
        "addresses",
    )
    config: Path | None = Field(None, description="mmseg: the mmengine configuration")
    architecture: str | None = Field(None, description="torchvision and smp: name of the network")
    encoder: str | None = Field(None, description="smp: name of the encoder")
    input_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="of the network's input: side of a square, or [height, width]; default: the grid's"
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="of 0..255 values, in the order of the network's channels; default: by kind"
    )
    std: tuple[float, float, float] | None = Field(None, description="as mean")
    fit: ModelFit = "pad"
    align_corners: bool = Field(False, description="how logits are upsampled")
    batch_size: int = Field(4, ge=1)
    device: str = Field("auto", pattern=DEVICE, description="auto: a CUDA device if there is one, else cpu")
    precision: Precision = "fp32"
    classes: dict[str, str] = Field(
        default_factory=dict,
        description='own class: class of the label set, or "ignore"; "*": every own class that is not named here and '
        "not in the label set",
    )
    own_classes: tuple[str, ...] | None = Field(None, description="names of the outputs; default: by kind")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.path is None and self.url is None and ":" not in self.kind:
            raise ValueError("wanted path, or url for kind label_studio")
        return self

    @property
    def required_path(self) -> Path:
        """`path`; raises SettingsError where it is missing."""
        if self.path is None:
            raise SettingsError(f'a model of kind "{self.kind}" needs path')
        return self.path


class ModelsSettings(_Section):
    """The target and who it competes with; `name` is the target's, versions are `name@0`, `name@1`, ..."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    target: ModelSettings
    competing: dict[str, ModelSettings] = Field(min_length=1)


class RaySettings(_Section):
    """A Ray cluster for the scan. Each actor holds all models once; `actors` null: as many as there is room for.

    `address`: host:port of the head of a cluster that this machine is a node of, "auto" finds it; null: a Ray of this
    machine's own.
    """

    address: str | None = Field(None, pattern=r"^(auto|[^/\s]+:\d+)$")
    actors: int | None = Field(None, ge=1)
    cpus_per_actor: float = Field(1, gt=0)
    gpus_per_actor: float = Field(0, ge=0)
    start_timeout_s: float = Field(
        300, gt=0, description="until the first actor has room and its models are loaded"
    )


class ScanSettings(_Section):
    """How the pool is predicted. `devices` has one process each; none: one process, devices as the models say.

    `chunk`: images that are read, predicted and written together. `decode_threads` null: by the cores there are.
    """

    engine: Literal["local", "ray"] = "local"
    devices: tuple[Annotated[str, Field(pattern=DEVICE)], ...] = ()
    chunk: int = Field(32, ge=1)
    decode_threads: int | None = Field(None, ge=1)
    ray: RaySettings = RaySettings()

    @model_validator(mode="after")
    def _of_one_engine(self) -> Self:
        if self.engine == "ray" and self.devices:
            raise ValueError(
                "scan.devices is for engine local; a Ray cluster gives out its own: ray.gpus_per_actor"
            )
        return self


class SelectionSettings(_Section):
    """M (Sec. 3.1). `windows` gives [p_k, q_k] by class name instead of the training images' quartiles.

    `near_duplicates`: images whose 64-bit perceptual hashes differ in at most so many bits are one and the same; null:
    off, as in the paper.
    """

    metric: Metric = Metric.MIOU
    n3: int = Field(25, ge=1)
    windows: dict[str, tuple[float, float]] = Field(default_factory=dict)
    near_duplicates: int | None = Field(None, ge=0, le=16)


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
    scan: ScanSettings = ScanSettings()
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

    @property
    def mirrors(self) -> Path:
        """Where images of Label Studio projects are mirrored, a folder per source."""
        return self.workspace / "pool"


class Secrets(BaseSettings):
    """Addresses and secrets, from the environment only: MAD_LABEL_STUDIO_TOKEN, MAD_WEBHOOK_SECRET, ..."""

    model_config = SettingsConfigDict(env_prefix="MAD_", extra="ignore", frozen=True)

    label_studio_url: str | None = None
    label_studio_token: SecretStr | None = None
    webhook_secret: SecretStr | None = None
    database: str | None = None
