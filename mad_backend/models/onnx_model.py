"""ONNX models, by onnxruntime."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet, RgbImage
from mad_backend.errors import ModelError
from mad_backend.models.array_model import ArrayModel, statistics
from mad_backend.models.base import missing_file
from mad_backend.settings import ModelSettings

INPUTS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""Types of images that are understood; float ones are normalised, uint8 ones are pixels as they are."""

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
"""In protobuf, the key of an external tensor's file and the length of its name."""


class OnnxModel(ArrayModel):
    """`path` is an .onnx file with one input, images (n, 3, H, W) or (n, H, W, 3); any of n, H, W may be free.

    Its first output is class ids (n, h, w), also with a channel of 1, or logits (n, C, h, w) or (n, h, w, C). Float
    images need mean and std. External data must lie in the file's folder; operators of other libraries are not loaded.
    """

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        path = settings.required_path
        if not path.is_file():
            raise missing_file(name, path, "an .onnx file")
        _check_places(name, path)
        self._session = _session(name, settings)
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if (
            len(inputs) != 1
            or len(shape) != 4
            or 3 not in (shape[1], shape[3])
            or inputs[0].type not in INPUTS
        ):
            found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise ModelError(
                f'model "{name}": {path} takes {found}; wanted one input, (n, 3, H, W) or (n, H, W, 3), of '
                f"{', '.join(INPUTS)}"
            )
        self._is_nchw = shape[1] == 3
        self._dtype = INPUTS[inputs[0].type]
        if self._dtype is not np.uint8:
            statistics(name, settings)
        height, width = shape[2:] if self._is_nchw else shape[1:3]
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        super().__init__(name, settings, labels, grid, settings.own_classes or labels.names, size)
        self._fixed_batch = shape[0] if isinstance(shape[0], int) else None
        self.batch_size = self._fixed_batch or settings.batch_size
        # One grey image shows whether the answers are of a kind that is understood.
        self.answers([np.full((*self.canvas.size, 3), 128, np.uint8)])

    @classmethod
    def files(cls, settings: ModelSettings) -> list[Path]:
        path = settings.required_path
        return [path, *(p for p in _external(path) if p.is_file())]

    def answers(self, contents: Sequence[RgbImage]) -> NDArray[Any]:
        images = self._images(contents)
        (output, *_) = self._session.get_outputs()
        try:
            (raw,) = self._session.run([output.name], {self._session.get_inputs()[0].name: images})
        except _errors() as error:
            raise ModelError(
                f'model "{self.name}": {self.settings.path} fails on a batch of shape {images.shape}: '
                f"{str(error)[:600]}; see its fit, input_size and batch_size"
            ) from error
        return self._arranged(raw[: len(contents)])

    def _images(self, contents: Sequence[RgbImage]) -> NDArray[Any]:
        if self._dtype is np.uint8:
            pixels = self.pixels(contents)
            images = np.moveaxis(pixels, 3, 1) if self._is_nchw else pixels
        else:
            normalised = self.normalised(contents).astype(self._dtype, copy=False)
            images = normalised if self._is_nchw else np.moveaxis(normalised, 1, 3)
        lacking = (self._fixed_batch or 0) - len(contents)
        if lacking > 0:
            images = np.concatenate([images, np.zeros((lacking, *images.shape[1:]), images.dtype)])
        return np.ascontiguousarray(images)

    def _arranged(self, raw: NDArray[Any]) -> NDArray[Any]:
        if raw.dtype.kind in "iu":
            if raw.ndim == 4 and 1 in (raw.shape[1], raw.shape[3]):
                raw = raw[:, 0] if raw.shape[1] == 1 else raw[..., 0]
            if raw.ndim == 3:
                return raw
        elif raw.dtype.kind == "f" and raw.ndim == 4:
            known = len(self.own_classes)
            # Where both axes could be the classes, the output is laid out as the input.
            axes = (1, 3) if self._is_nchw else (3, 1)
            axis = next((a for a in axes if raw.shape[a] == known), axes[0])
            self.check_outputs(raw.shape[axis])
            return np.moveaxis(raw, axis, 1).astype(np.float32, copy=False)
        raise ModelError(
            f'model "{self.name}": {self.settings.path} answers {raw.dtype} of shape {raw.shape}; wanted class ids '
            "(n, h, w) or float logits (n, C, h, w) or (n, h, w, C)"
        )


def _session(name: str, settings: ModelSettings) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Threads that spin while they wait take the processor from the other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    device, _, number = settings.device.partition(":")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(number or 0)}))
    try:
        session = onnxruntime.InferenceSession(str(settings.required_path), options, providers=providers)
    except _errors() as error:
        raise ModelError(f'model "{name}": cannot load {settings.path}: {str(error)[:600]}') from error
    if device not in ("auto", "cpu") and session.get_providers()[0] != "CUDAExecutionProvider":
        raise ModelError(
            f'model "{name}": device "{settings.device}" is not there for onnxruntime {onnxruntime.__version__}; '
            "install onnxruntime-gpu, or write device: auto, or cpu"
        )
    return session


def _errors() -> tuple[type[Exception], ...]:
    """onnxruntime has an exception for each status, without a common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception))


def _external(path: Path) -> list[Path]:
    """Files that hold tensors of an .onnx file; read from its bytes, since the onnx package need not be there."""
    content = path.read_bytes()
    names = {content[m.end() : m.end() + m.group(1)[0]] for m in _LOCATION.finditer(content)}
    return [path.parent / name.decode("utf-8", "replace") for name in sorted(names)]


def _check_places(name: str, path: Path) -> None:
    folder = path.parent.resolve()
    for external in _external(path):
        if not external.resolve().is_relative_to(folder):
            raise ModelError(f'model "{name}": {path} reads {external}, which is not in its folder; refused')
