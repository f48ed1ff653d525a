"""Weights of PyTorch networks in files: safetensors, or .pth of tensors; nothing is ever unpickled."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mad_backend.errors import ModelError

if TYPE_CHECKING:
    import torch

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training frameworks keep the weights in a checkpoint."""


def read_weights(model: str, path: Path) -> "dict[str, torch.Tensor]":
    """Weights by name, floating ones as float32, of a safetensors file or of a .pth with tensors only.

    Raises ModelError when the file is neither; a .pth that holds anything else is refused, never unpickled.
    """
    raw = _safetensors(model, path) if path.suffix == ".safetensors" else _pth(model, path)
    return {name: value.float() if value.is_floating_point() else value for name, value in raw.items()}


def put_weights(model: str, module: Any, weights: "Mapping[str, torch.Tensor]", path: Path) -> None:
    """Loads every weight of `module`; raises ModelError naming what does not fit."""
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ModelError(f'model "{model}": {path} does not fit its network: {str(error)[:600]}') from error


def save_weights(module: Any, folder: Path) -> Path:
    """Writes "model.safetensors" into `folder`, which is made; returns its path."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


def _safetensors(model: str, path: Path) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f'model "{model}": cannot read {path}: {error}') from error


def _pth(model: str, path: Path) -> "dict[str, torch.Tensor]":
    import torch

    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f'model "{model}": {path} holds more than tensors and is not unpickled; re-save its state_dict as '
            "safetensors: safetensors.torch.save_file(checkpoint['state_dict'], 'model.safetensors')"
        ) from error
    except (RuntimeError, OSError, EOFError) as error:
        raise ModelError(f'model "{model}": cannot read {path}: {str(error)[:600]}') from error
    inner = next((raw[key] for key in WRAPPERS if isinstance(raw, dict) and key in raw), raw)
    if not isinstance(inner, dict) or not all(isinstance(value, torch.Tensor) for value in inner.values()):
        raise ModelError(f'model "{model}": {path} is not a state_dict: wanted tensors by name')
    return inner
