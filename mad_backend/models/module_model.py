"""PyTorch networks of somebody's own: a class or function in a package of theirs that gives a torch.nn.Module."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.base import missing_file
from mad_backend.models.torch_model import IMAGENET_MEAN, IMAGENET_STD, TorchModel, found_logits
from mad_backend.models.weights import put_weights, read_weights, save_weights
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch

CLASSES_ARGUMENTS = ("num_classes", "n_classes", "classes", "num_labels", "nclass")
"""How libraries call the number of outputs."""


class ModuleModel(TorchModel):
    """`kind` names what gives the network ("their_package.module:TheirNet"), `path` its weights.

    It is called with the number of classes where it takes that, else without arguments. The weights are a .safetensors
    file, or a .pth of tensors; without `path` they are what the class itself makes, from the same random numbers each
    time. The network takes normalised images (n, 3, H, W) and gives logits (n, C, h, w): alone, first of a tuple, under
    "out" or "logits" in a dict, or as `logits` of an object. Mean and std are ImageNet's unless settings say otherwise.
    """

    unused = frozenset({"url", "config", "architecture", "encoder"})

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        path = settings.path
        if path is not None and not path.is_file():
            raise missing_file(name, path, "weights (.safetensors, or .pth of tensors)")
        own = settings.own_classes or labels.names
        module = _build(name, settings.kind, len(own))
        if path is not None:
            put_weights(name, module, read_weights(name, path), path)
        mean, std = settings.mean or IMAGENET_MEAN, settings.std or IMAGENET_STD
        super().__init__(name, settings, labels, grid, own, module, mean, std)
        self.check_by_trial()

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        source = inspect.getsourcefile(importlib.import_module(settings.kind.partition(":")[0]))
        return [Path(found) for found in (source, settings.path) if found]

    def run(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        return found_logits(self.name, self.settings.kind, module(batch))

    def save(self, folder: Path) -> Path:
        return save_weights(self.module, folder)


def _build(name: str, kind: str, classes: int) -> Any:
    """The network with its own first weights, which are the same at each call."""
    import torch

    module_name, _, attribute = kind.partition(":")
    factory = getattr(importlib.import_module(module_name), attribute)
    arguments, named = _arguments(name, kind, factory, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            module = factory(*arguments, **named)
        except (TypeError, ValueError, RuntimeError, LookupError, AssertionError) as error:
            raise ModelError(f'model "{name}": {kind} cannot be built: {str(error)[:600]}') from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            f'model "{name}": {kind} is not a subclass of SegmentationModel, nor does it give a torch.nn.Module: '
            f"it gives a {type(module).__name__}"
        )
    return module


def _arguments(
    name: str, kind: str, factory: Callable[..., Any], classes: int
) -> tuple[tuple[int, ...], dict[str, int]]:
    """The number of classes, by the name that the factory has for it, or as its one required argument."""
    parameters = inspect.signature(factory).parameters
    known = next((argument for argument in CLASSES_ARGUMENTS if argument in parameters), None)
    needed = [
        parameter
        for parameter in parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name != known
    ]
    if known and not needed:
        return (), {known: classes}
    if not needed:
        return (), {}
    if not known and len(needed) == 1:
        (only,) = needed
        return ((), {only.name: classes}) if only.kind is only.KEYWORD_ONLY else ((classes,), {})
    raise ModelError(
        f'model "{name}": {kind} needs {", ".join(parameter.name for parameter in needed)}; wanted a class or function '
        "that takes the number of classes, or nothing"
    )
