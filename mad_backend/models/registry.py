"""Which kinds of model there are, where their code lies and what they need."""

import importlib
from pathlib import Path

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import MissingRuntimeError, ModelError, UnknownKindError
from mad_backend.models.base import SegmentationModel, missing_file, model_key
from mad_backend.settings import ModelSettings

KINDS: dict[str, tuple[str, str]] = {
    "hf": ("mad_backend.models.hf_model:HfModel", "hf"),
    "mmseg": ("mad_backend.models.mmseg_model:MmsegModel", "mmseg"),
    "torchvision": ("mad_backend.models.torchvision_model:TorchvisionModel", "torchvision"),
    "smp": ("mad_backend.models.smp_model:SmpModel", "smp"),
    "torchscript": ("mad_backend.models.torchscript_model:TorchscriptModel", "torchscript"),
    "onnx": ("mad_backend.models.onnx_model:OnnxModel", "onnx"),
    "tflite": ("mad_backend.models.tflite_model:TfliteModel", "tflite"),
    "folder": ("mad_backend.models.folder_model:FolderModel", ""),
    "label_studio": ("mad_backend.models.label_studio_model:LabelStudioModel", ""),
}
"""Kind -> (class, extra of this package that installs its runtime)."""

TRAINABLE = frozenset({"hf", "mmseg", "smp", "torchvision"})
"""Kinds of ours that can be a target: fine-tuning needs their weights."""

OWN_NETWORK = "mad_backend.models.module_model:ModuleModel"
"""Adapter of a torch.nn.Module of somebody's own."""


def is_trainable(kind: str) -> bool:
    """Whether a target may be of this kind; one of somebody's own shows when it is loaded."""
    return kind in TRAINABLE or ":" in kind


def load_model(
    name: str, settings: ModelSettings, labels: LabelSet, grid: Grid, device: str | None = None
) -> SegmentationModel:
    """Loads a model of any kind. `kind: "their_package.module:TheirModel"` is the door for anything else.

    That is a subclass of SegmentationModel, or a class or function that gives a torch.nn.Module: see `ModuleModel`.
    `device` stands in place of the settings' own where the kind has a choice. Raises UnknownKindError,
    MissingRuntimeError or ModelError: three faults with three cures.
    """
    try:
        model_class = _model_class(name, settings)
        if device and "device" not in model_class.unused:
            settings = settings.model_copy(update={"device": device})
        return model_class(name, settings, labels, grid)  # type: ignore[call-arg]
    except ModuleNotFoundError as error:
        extra = KINDS.get(settings.kind, ("", ""))[1]
        cure = f"pip install 'mad-segmentation[{extra}]'" if extra else f"install what {settings.kind} needs"
        raise MissingRuntimeError(
            f'model "{name}": kind "{settings.kind}" needs {error.name}; {cure}'
        ) from error


def stored_key(name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> str:
    """The key under which a model's label maps are stored, without loading it; raises as `load_model` does."""
    try:
        return model_key(name, _model_class(name, settings), settings, labels, grid)
    except OSError as error:
        missing = Path(error.filename) if error.filename else settings.required_path
        raise missing_file(name, missing, f"what a model of kind {settings.kind} consists of") from error


def _model_class(name: str, settings: ModelSettings) -> type[SegmentationModel]:
    dotted = KINDS.get(settings.kind, (settings.kind, ""))[0]
    if ":" not in dotted:
        raise UnknownKindError(
            f'model "{name}": kind "{settings.kind}" is unknown; wanted one of {", ".join(KINDS)}, or '
            '"package.module:Class"'
        )
    found = _imported(name, dotted)
    if isinstance(found, type) and issubclass(found, SegmentationModel):
        return found
    if not callable(found):
        raise ModelError(
            f'model "{name}": {dotted} is not a subclass of SegmentationModel, nor a class or function that gives a '
            "torch.nn.Module"
        )
    adapter = _imported(name, OWN_NETWORK)
    assert isinstance(adapter, type)
    assert issubclass(adapter, SegmentationModel)
    return adapter


def _imported(name: str, dotted: str) -> object:
    """What "package.module:attribute" names, or None."""
    module_name, _, attribute = dotted.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise MissingRuntimeError(f'model "{name}": {dotted} needs {error.name}; install it') from error
