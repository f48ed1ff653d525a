"""Any mmsegmentation 1.x model: its configuration and a checkpoint."""

import contextlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet
from mad_backend.errors import ModelError
from mad_backend.models.base import missing_file
from mad_backend.models.mmseg_files import config_files
from mad_backend.models.torch_model import TorchModel
from mad_backend.models.torchvision_operators import define_missing_operators
from mad_backend.models.weights import put_weights, read_weights, save_weights
from mad_backend.settings import ModelSettings

if TYPE_CHECKING:
    import torch


class MmsegModel(TorchModel):
    """`config` is an mmengine configuration with `model`; `path` a safetensors file, or a .pth of tensors only.

    A .pth is read with weights_only: one that holds anything but tensors is refused, never unpickled. Sliding windows
    are the configuration's (`test_cfg`), and so is `align_corners`.
    """

    unused = frozenset({"url", "architecture", "encoder", "align_corners"})

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        if settings.config is None or not settings.config.is_file():
            raise missing_file(
                name, settings.config or Path("config"), "an mmsegmentation configuration file"
            )
        path = settings.required_path
        if not path.is_file():
            raise missing_file(name, path, "a checkpoint (.safetensors or .pth)")
        self.config = config = read_config(settings.config)
        module = build_segmentor(name, config)
        put_weights(name, module, read_weights(name, path), path)
        own = settings.own_classes or tuple(config.get("classes") or labels.names)
        preprocessor = config.model.get("data_preprocessor") or {}
        mean = settings.mean or tuple(preprocessor.get("mean") or (0.0, 0.0, 0.0))
        std = settings.std or tuple(preprocessor.get("std") or (1.0, 1.0, 1.0))
        is_bgr = not preprocessor.get("bgr_to_rgb", False)
        super().__init__(name, settings, labels, grid, own, module, mean, std, is_bgr=is_bgr)
        self.check_outputs(int(module.out_channels))
        self.align_corners = bool(module.align_corners)
        self._is_plain = _is_plain(module)
        self._is_random = _is_random(module)
        self._drawing = Lock()

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return [*(config_files(settings.config) if settings.config else ()), settings.required_path]

    def run(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        import torch

        if not self._is_random:
            return self._logits(module, batch)
        # The same image shall have the same map, whatever other threads do with PyTorch's one source of numbers.
        devices = [batch.device] if batch.device.type == "cuda" else []
        with self._drawing, torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            return self._logits(module, batch)

    def _logits(self, module: Any, batch: "torch.Tensor") -> "torch.Tensor":
        if self._is_plain:
            answer: torch.Tensor = module(batch, mode="tensor")
        else:
            size = tuple(batch.shape[-2:])
            meta = {"img_shape": size, "ori_shape": size, "pad_shape": size}
            answer = module.inference(batch, [meta] * len(batch))
        if answer.shape[1] == 1:
            # The second class begins at the head's threshold, a probability.
            threshold = last_head(self.module).threshold
            answer = answer - math.log(threshold / (1 - threshold))
        return answer

    def save(self, folder: Path) -> Path:
        return save_weights(self.module, folder)


def _is_random(module: Any) -> bool:
    """True for SegNeXt's heads, whose matrix decomposition starts from random numbers."""
    from mmseg.models.decode_heads.ham_head import Matrix_Decomposition_2D_Base

    return any(isinstance(part, Matrix_Decomposition_2D_Base) for part in module.modules())


def _is_plain(module: Any) -> bool:
    """True where logits are what the head's forward gives, so that upsampling can be left to us."""
    from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder

    own = {EncoderDecoder._forward, CascadeEncoderDecoder._forward}  # noqa: SLF001 - what mode "tensor" calls
    head = type(last_head(module))
    return (
        module.test_cfg.mode == "whole"
        and type(module)._forward in own  # noqa: SLF001
        and head.predict in {BaseDecodeHead.predict, BaseCascadeDecodeHead.predict}
        and head.predict_by_feat is BaseDecodeHead.predict_by_feat
    )


def last_head(module: Any) -> Any:
    """The head whose answer counts; a cascade has several."""
    from torch.nn import ModuleList

    head = module.decode_head
    return head[-1] if isinstance(head, ModuleList) else head


def head_logits(module: Any, batch: "torch.Tensor") -> "torch.Tensor":
    """(n, C, h, w) of the last head as it is used for predictions, at its own resolution.

    Heads that answer more in training are in inference mode meanwhile.
    """
    head = last_head(module)
    training = [part for part in head.modules() if part.training]
    head.eval()
    try:
        answer: torch.Tensor = module(batch, mode="tensor")
    finally:
        for part in training:
            part.training = True
    return answer


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silences what mmengine and mmcv print on import: that an optional package and compiled operators are absent."""
    define_missing_operators()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def read_config(path: Path) -> Any:
    """An mmengine Config; raises ModelError with the parser's reason.

    Modules that it names under `custom_imports` are imported if it is Python, which runs code of its own anyway; a
    configuration of plain data never makes anything run.
    """
    with quietly():
        from mmengine.config import Config

    try:
        return Config.fromfile(path, import_custom_modules=path.suffix == ".py")
    except Exception as error:  # mmengine raises whatever the executed file raises
        raise ModelError(f"mmsegmentation configuration {path}: {error}") from error


def build_segmentor(name: str, config: Any) -> Any:
    """The segmentor of `config.model` with fresh weights, for one process; raises ModelError.

    It never looks for pre-trained weights, and batch norm is not synchronised between processes.
    """
    with quietly():
        from mmengine.config import ConfigDict
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        model = ConfigDict(_standing_alone(config.model))
        model.test_cfg = ConfigDict({"mode": "whole", **(model.get("test_cfg") or {})})
        try:
            return MODELS.build(model)
        except (
            KeyError,
            TypeError,
            ValueError,
            AssertionError,
            AttributeError,
            ImportError,
            RuntimeError,
        ) as error:
            raise ModelError(
                f'model "{name}": mmsegmentation cannot build its configuration: {error}'
            ) from error


def _standing_alone(value: Any) -> Any:
    """A copy of a configuration that needs no other process and no weights but the checkpoint's."""
    if isinstance(value, dict):
        kept = {key: _standing_alone(item) for key, item in value.items() if not _is_pretrained(key, item)}
        if kept.get("type") in ("SyncBN", "MMSyncBN"):
            kept["type"] = "BN"
        if kept.get("type") == "TIMMBackbone":
            kept["pretrained"] = False  # its default is a download
        return kept
    if isinstance(value, list | tuple):
        return type(value)(_standing_alone(item) for item in value)
    return value


def _is_pretrained(key: str, item: Any) -> bool:
    if key == "init_cfg":
        return any(
            "Pretrained" in str(part.get("type"))
            for part in (item if isinstance(item, list) else [item or {}])
        )
    return key == "pretrained"
