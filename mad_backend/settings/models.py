"""Settings of models, and of how they predict the pool."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from mad_backend.errors import SettingsError
from mad_backend.settings.section import Section

ModelFit: TypeAlias = Literal["pad", "keep", "stretch"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]


DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"


class ModelSettings(Section):
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


class ModelsSettings(Section):
    """The target and who it competes with; `name` is the target's, versions are `name@0`, `name@1`, ..."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    target: ModelSettings
    competing: dict[str, ModelSettings] = Field(min_length=1)


class RaySettings(Section):
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


class ScanSettings(Section):
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
