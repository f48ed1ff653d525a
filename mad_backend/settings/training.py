"""Settings of fine-tuning: the recipe, where it runs, what is logged beside our own records."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mad_backend.settings.models import DEVICE, Precision
from mad_backend.settings.section import Section


class Recipe(StrEnum):
    """`protect` keeps what the target knows (the default); `paper` is Sec. 4.1 to the letter."""

    PROTECT = "protect"
    PAPER = "paper"


class ValidationMode(StrEnum):
    """`split`: T(0) is halved, one half chooses epoch and rate, the other is reported. `paper`: T(0) does both."""

    SPLIT = "split"
    PAPER = "paper"


class DistillationSettings(Section):
    """Learning without forgetting (Li and Hoiem 2016): the new version is held to the answers of f(i-1).

    `failures`, `replay` and `pool` weigh this loss on images of S, of S(0) and on unlabelled ones of the pool; 0: off.
    `images`: of the pool, in each batch beside the `batch_size` labelled ones. `labels` weighs the loss on human label
    maps beside it; without `replay_labels` those of S(0) are not learnt, only the teacher's answers. `teachers`:
    competing models, by name, whose probabilities are averaged with f(i-1)'s; "all": every PyTorch model that knows the
    target's classes. `mirror`: each answers the image and its mirror image.
    """

    failures: float = Field(0.0, ge=0)
    replay: float = Field(0.0, ge=0)
    pool: float = Field(0.0, ge=0)
    images: int = Field(1, ge=1)
    temperature: float = Field(2.0, gt=0)
    labels: float = Field(1.0, gt=0)
    replay_labels: bool = True
    teachers: tuple[str, ...] | Literal["all"] = ()
    mirror: bool = False
    free_rates: tuple[float, ...] = Field((), description="learning rates at which there is no teacher")
    free_epochs: int | None = Field(
        None, ge=1, description="passes over S at these rates; null: as at others"
    )
    cache_bytes: int | None = Field(
        None,
        ge=0,
        description="disk for teachers' answers to images that are always seen alike (no crop, scale or photometric), "
        "which are asked once; 0: off; null: on a CPU 4 GiB, else none",
    )

    @model_validator(mode="after")
    def _learns_from_replay(self) -> Self:
        if not self.replay_labels and not self.replay:
            raise ValueError(
                "without replay_labels images of S(0) have no part in the loss; give replay a weight"
            )
        return self


class SlurmSettings(Section):
    """How srun is asked; `arguments` go to it as they are: ["--gres=gpu:2", "--time=08:00:00"]."""

    partition: str | None = None
    arguments: tuple[str, ...] = ()


class RayTrainSettings(Section):
    """A Ray cluster that trains. `address` as in scan.ray; null: a Ray of this machine's own."""

    address: str | None = Field(None, pattern=r"^(auto|[^/\s]+:\d+)$")
    cpus_per_process: float = Field(1, gt=0)
    gpus_per_process: float = Field(0, ge=0)


class LauncherSettings(Section):
    """Who starts the processes that train.

    local: learning rates side by side, a process for each of `devices`; none given: all CUDA devices, and with one or
    none in this process. The others start `processes` on each of `nodes` machines, which share each batch of one run:
    torchrun, slurm (srun) and ray (Ray Train). All machines need the job's files under the same paths. `address`,
    `port`: of the machine where the processes meet; null: found out where it can be.
    """

    kind: Literal["local", "torchrun", "slurm", "ray"] = "local"
    devices: tuple[Annotated[str, Field(pattern=DEVICE)], ...] = ()
    processes: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    address: str | None = None
    port: int | None = Field(None, ge=1, le=65535)
    stall_s: float = Field(3600, gt=0, description="started processes without progress for so long are ended")
    slurm: SlurmSettings = SlurmSettings()
    ray: RayTrainSettings = RayTrainSettings()

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.kind == "local" and self.processes * self.nodes > 1:
            raise ValueError(
                "several processes of one run want kind torchrun, slurm or ray; local has devices"
            )
        if self.kind != "local" and self.devices:
            raise ValueError("devices is for kind local; the others give each process its own: processes")
        if self.kind == "torchrun" and self.nodes > 1 and (self.address is None or self.port is None):
            raise ValueError("torchrun on several nodes wants address and port, at which they meet")
        return self


TRACKING_SCHEMES = ("http", "https", "file", "sqlite", "databricks")


class TrackingSettings(Section):
    """Further places where learning curves are logged; our own records are always written.

    `tensorboard`: event files in the run's folder. `mlflow`: a folder, or a tracking address; credentials come from
    MLflow's own environment variables.
    """

    tensorboard: bool = False
    mlflow: str | None = None

    @field_validator("mlflow")
    @classmethod
    def _without_password(cls, given: str | None) -> str | None:
        scheme, is_address, rest = (given or "").partition("://")
        if is_address and ("@" in rest or "?" in rest):
            raise ValueError(
                "credentials do not belong into an address; MLflow takes MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, from the environment"
            )
        if given is not None and (not given or (is_address and scheme not in TRACKING_SCHEMES)):
            wanted = ", ".join(f"{s}://" for s in TRACKING_SCHEMES)
            raise ValueError(f"wanted a folder or an address that begins with one of {wanted}, got {given!r}")
        return given


class TrainingSettings(Section):
    """Fine-tuning (Sec. 4.1, "Model rectification"). What is not given comes from the recipe."""

    recipe: Recipe = Recipe.PROTECT
    learning_rates: tuple[float, ...] = Field((1e-5, 5e-5, 1e-4), min_length=1)
    choose: Literal["best", "careful"] = Field(
        "best",
        description="of the rates the best on the dev set; or the most protective, with a teacher and small, unless "
        "another is better there by more than a standard error",
    )
    epochs: int = Field(80, ge=1)
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without a better one")
    batch_size: int = Field(2, ge=2)
    replay: float = Field(0.5, gt=0, lt=1, description="share of S(0) in a batch")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one step")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="adamw: of the mean of gradients")
    warmup: int = Field(0, ge=0, description="steps over which the rate rises to its first value")
    weight_decay: float = Field(5e-4, ge=0)
    poly_power: float = Field(0.9, gt=0)
    clip_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this norm")
    backbone_rate: float = Field(1.0, ge=0, description="factor of the backbone's learning rate; 0: frozen")
    freeze_batch_norm: bool | None = Field(None, description="null: frozen at batch size 4 or less")
    dropout: bool = Field(False, description="dropout and stochastic depth stay on, as when a network is new")
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    loss_stride: int = Field(
        1, ge=1, description="the loss is taken at every n-th pixel of both sides (not mmseg)"
    )
    distillation: DistillationSettings = DistillationSettings()
    ema: float | None = Field(
        None, gt=0, lt=1, description="weights are averaged over steps with this momentum"
    )
    interpolation: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (),
        description="shares of the new weights, the rest f(i-1)'s, from which the dev set chooses (WiSE-FT)",
    )
    validation: ValidationMode = ValidationMode.SPLIT
    failures_dev: float = Field(
        0.0, ge=0, lt=1, description="share of S that is not learnt but helps to choose"
    )
    crop: int | None = Field(None, description="side of random training crops; null: whole images")
    scale: tuple[float, float] | None = Field(
        None, description="images are resized at random by such a factor"
    )
    horizontal_flip: bool = True
    photometric: bool = Field(False, description="brightness, contrast, saturation and hue at random")
    precision: Precision = "fp32"
    channels_last: bool | None = Field(
        None,
        description="memory order of images; null: on a CPU, and in half precision, where most convolutions are faster",
    )
    threads: int | None = Field(None, ge=1)
    workers: int | None = Field(
        None,
        ge=0,
        description="processes that read images; null: for a CPU one if it has four cores, for a GPU up to four",
    )
    cache_bytes: int | None = Field(
        None,
        ge=0,
        description="memory for decoded images, the others are read again; null: for a GPU 1 GiB, else 32 MiB",
    )
    launcher: LauncherSettings = LauncherSettings()
    tracking: TrackingSettings = TrackingSettings()

    def at(self, learning_rate: float) -> Self:
        """As they are for the run at this rate."""
        if learning_rate not in self.distillation.free_rates:
            return self
        epochs = self.distillation.free_epochs or self.epochs
        return self.model_copy(update={"distillation": DistillationSettings(), "epochs": epochs})

    @model_validator(mode="before")
    @classmethod
    def _from_recipe(cls, given: Any) -> Any:
        if isinstance(given, dict):
            recipe = given.get("recipe", Recipe.PROTECT)
            if recipe in list(Recipe):
                preset = PRESETS[Recipe(recipe)]
                both, own = {**preset, **given}, given.get("distillation", {})
                if isinstance(own, dict):
                    shared = preset.get("distillation", {})
                    if "epochs" in given:
                        # Who says how long to train means all rates.
                        shared = {**shared, "free_epochs": None}
                    # Key by key, so that one may be changed without the others.
                    both["distillation"] = {**shared, **own}
                return both
        return given


PRESETS: dict[Recipe, dict[str, Any]] = {
    Recipe.PROTECT: {
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "warmup": 10,
        "freeze_batch_norm": True,
        "learning_rates": (3e-5, 3e-4),
        "choose": "careful",
        "epochs": 3,
        "loss_stride": 4,
        "distillation": {
            "failures": 0.5,
            "replay": 0.5,
            "pool": 1.0,
            "labels": 0.5,
            "temperature": 1.0,
            "teachers": "all",
            "mirror": True,
            "free_rates": (3e-4,),
            "free_epochs": 12,
        },
    },
    Recipe.PAPER: {"dropout": True},
}
"""What a recipe sets where settings do not say otherwise; `paper`: Sec. 4.1, networks in their own training mode."""
