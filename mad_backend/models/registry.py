"""Which kinds of model there are, where their code lies and what they need."""

import importlib

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import MissingRuntimeError, ModelError, UnknownKindError
from mad_backend.models.base import SegmentationModel, missing_file, model_key
from mad_backend.settings import ModelSettings

KINDS: dict[str, tuple[str, str]] = {
    "hf": ("mad_backend.models.hf_model:HfModel", "hf"),
    "mmseg": ("mad_backend.models.mmseg_model:MmsegModel", "mmseg"),
    "folder": ("mad_backend.models.folder_model:FolderModel", ""),
    "tflite": ("mad_backend.models.tflite_model:TfliteModel", "tflite"),
}
"""Kind -> (class, extra of this package that installs its runtime)."""

TRAINABLE = frozenset({"hf", "mmseg"})
"""Kinds that can be a target: fine-tuning needs their weights."""


def load_model(name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> SegmentationModel:
    """Loads a model of any kind. `kind: "their_package.module:TheirModel"` is the door for anything else.

    Raises UnknownKindError, MissingRuntimeError or ModelError: three faults with three cures.
    """
    try:
        return _model_class(name, settings)(name, settings, labels, grid)  # type: ignore[call-arg]
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
        raise missing_file(
            name, settings.path, f"what a model of kind {settings.kind} consists of"
        ) from error


def _model_class(name: str, settings: ModelSettings) -> type[SegmentationModel]:
    dotted = KINDS.get(settings.kind, (settings.kind, ""))[0]
    module_name, _, class_name = dotted.partition(":")
    if not class_name:
        raise UnknownKindError(
            f'model "{name}": kind "{settings.kind}" is unknown; wanted one of {", ".join(KINDS)}, or '
            '"package.module:Class"'
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        raise MissingRuntimeError(f'model "{name}": {dotted} needs {error.name}; install it') from error
    if not (isinstance(found, type) and issubclass(found, SegmentationModel)):
        raise ModelError(f'model "{name}": {dotted} is not a subclass of SegmentationModel')
    return found
