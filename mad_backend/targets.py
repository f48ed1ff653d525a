"""Versions of the target model as models: f(0) as settings describe it, f(i) from its checkpoint."""

from pathlib import Path

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.core.records import ModelVersion
from mad_backend.models.base import SegmentationModel
from mad_backend.models.registry import load_model, stored_key
from mad_backend.settings import ModelSettings, Settings


def target_settings(version: ModelVersion, settings: Settings) -> ModelSettings:
    """The target's settings with the checkpoint of `version`, a file or a folder by kind, in place of f(0)'s."""
    target = settings.models.target
    return target if version.path is None else target.model_copy(update={"path": Path(version.path)})


def load_target(version: ModelVersion, settings: Settings, labels: LabelSet, grid: Grid) -> SegmentationModel:
    """f(i), loaded; its name is the version. Raises what `load_model` raises."""
    return load_model(version.version, target_settings(version, settings), labels, grid)


def target_key(version: ModelVersion, settings: Settings, labels: LabelSet, grid: Grid) -> str:
    """The key under which f(i)'s label maps are stored, without loading it."""
    return stored_key(version.version, target_settings(version, settings), labels, grid)
