"""Scripted or traced PyTorch networks: one file that needs no source code."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.array_model import statistics
from mad_backend.models.base import missing_file
from mad_backend.models.torch_model import TorchModel, found_logits
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch


class TorchscriptModel(TorchModel):
    """`path` is a file of `torch.jit.save`: images (n, 3, H, W) in, logits (n, C, h, w) out; mean and std are required.

    The logits may be the first of a tuple, or stand under "out" or "logits" in a dict. Nothing is unpickled, but such a
    file holds code that runs in PyTorch's own interpreter: take it from those you trust.
    """

    unused = frozenset({"url", "config", "architecture", "encoder"})

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        import torch

        path = settings.required_path
        if not path.is_file():
            raise missing_file(name, path, "a TorchScript file (torch.jit.save)")
        try:
            with _without_deprecation():
                module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ModelError(
                f'model "{name}": {path} is not a TorchScript file; save one with torch.jit.save: {str(error)[:300]}'
            ) from error
        own = settings.own_classes or labels.names
        super().__init__(name, settings, labels, grid, own, module, *statistics(name, settings))
        self.check_by_trial()

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return (settings.required_path,)

    def run(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        return found_logits(self.name, str(self.settings.path), module(batch))

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.pt"
        with _without_deprecation():
            self.module.save(str(path))
        return path


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """PyTorch calls TorchScript deprecated at each use; the files are there all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        yield
