"""Any mmsegmentation 1.x model: its configuration and a checkpoint."""

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.base import TorchModel, load_safetensors, missing_file
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch


class MmsegModel(TorchModel):
    """`config` is an mmengine configuration with `model`; `path` a safetensors file, or a .pth of tensors only.

    A .pth is read with weights_only: one that holds anything but tensors is refused, never unpickled.
    """

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        if settings.config is None or not settings.config.is_file():
            raise missing_file(
                name, settings.config or Path("config"), "an mmsegmentation configuration file"
            )
        if not settings.path.is_file():
            raise missing_file(name, settings.path, "a checkpoint (.safetensors or .pth)")
        self.config = config = read_config(settings.config)
        self.module = build_segmentor(name, config)
        if settings.path.suffix == ".safetensors":
            load_safetensors(name, self.module, settings.path)
        else:
            _load_pth(name, self.module, settings.path)
        own = settings.own_classes or tuple(config.get("classes") or labels.names)
        super().__init__(name, settings, labels, grid, own)
        self.check_outputs(int(self.module.decode_head.out_channels), own)
        self.mean, self.std = self._statistics(config.model.data_preprocessor)
        self.is_bgr = not config.model.data_preprocessor.get("bgr_to_rgb", False)
        self.module.eval()

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return (settings.config, settings.path) if settings.config else (settings.path,)

    def logits(self, batch: "torch.Tensor") -> "torch.Tensor":
        height, width = batch.shape[-2:]
        meta = {"img_shape": (height, width), "ori_shape": (height, width), "pad_shape": (height, width)}
        answer: torch.Tensor = self.module.encode_decode(batch, [meta] * len(batch))
        return answer

    def save(self, folder: Path) -> Path:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.safetensors"
        save_file({name: value.contiguous() for name, value in self.module.state_dict().items()}, path)
        return path

    def _statistics(self, config: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        mean = self.settings.mean or tuple(config.get("mean") or (0.0, 0.0, 0.0))
        std = self.settings.std or tuple(config.get("std") or (1.0, 1.0, 1.0))
        return mean, std


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silences what mmengine and mmcv print on import: that an optional package and compiled operators are absent."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def read_config(path: Path) -> Any:
    """An mmengine Config; raises ModelError with the parser's reason."""
    with quietly():
        from mmengine.config import Config

    try:
        return Config.fromfile(path, import_custom_modules=False)
    except Exception as error:  # mmengine raises whatever the executed file raises
        raise ModelError(f"mmsegmentation configuration {path}: {error}") from error


def build_segmentor(name: str, config: Any) -> Any:
    """The segmentor of `config.model` with fresh weights; raises ModelError."""
    with quietly():
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        try:
            return MODELS.build(config.model)
        except (KeyError, TypeError, AssertionError, AttributeError) as error:
            raise ModelError(
                f'model "{name}": mmsegmentation cannot build its configuration: {error}'
            ) from error


def _load_pth(name: str, module: Any, path: Path) -> None:
    import pickle

    import torch

    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(raw.get("state_dict", raw), strict=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f'model "{name}": {path} holds more than tensors and is not unpickled; re-save its state_dict as '
            "safetensors: safetensors.torch.save_file(checkpoint['state_dict'], 'model.safetensors')"
        ) from error
    except (RuntimeError, OSError, AttributeError) as error:
        raise ModelError(f'model "{name}": cannot load {path}: {str(error)[:600]}') from error
