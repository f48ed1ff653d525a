"""TFLite models, by LiteRT: quantised or float, answering label maps or logits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelSet, RgbImage
from mad_backend.errors import ModelError
from mad_backend.models.array_model import ArrayModel, statistics
from mad_backend.models.base import missing_file
from mad_backend.settings import ModelSettings


class TfliteModel(ArrayModel):
    """`path` is a .tflite file with one input, images (1, H, W, 3) uint8, int8 or float32. `own_classes` is required.

    Its output is class ids (1, h, w), also with a channel of 1, or logits (1, h, w, C), quantised or not. Quantised
    images are pixels as they are (int8: less 128); with mean and std they are normalised and quantised by the file's
    parameters. Float images need mean and std.
    """

    unused = ArrayModel.unused | {"device"}

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        from ai_edge_litert.interpreter import Interpreter

        path = settings.required_path
        if not path.is_file():
            raise missing_file(name, path, "a .tflite file")
        if settings.own_classes is None:
            raise ModelError(f'model "{name}": a TFLite file names no classes; list them under own_classes')
        try:
            self._interpreter = Interpreter(model_path=str(path))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f'model "{name}": cannot load {path}: {error}') from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        batch, height, width, channels = (*self._input["shape"].tolist(), 0, 0, 0)[:4]
        if (batch, channels) != (1, 3) or self._input["dtype"] not in (np.uint8, np.int8, np.float32):
            raise ModelError(
                f'model "{name}": {path} takes {_described(self._input)}; wanted (1, H, W, 3) uint8, int8 or float32'
            )
        if self._input["dtype"] is np.float32 or settings.mean or settings.std:
            statistics(name, settings)
        super().__init__(name, settings, labels, grid, settings.own_classes, (height, width))
        self.batch_size = 1
        self._answers_ids = self._check_output()

    def answers(self, contents: Sequence[RgbImage]) -> NDArray[Any]:
        self._interpreter.set_tensor(self._input["index"], self._images(contents))
        self._interpreter.invoke()
        raw: NDArray[Any] = self._interpreter.get_tensor(self._output["index"])
        if self._answers_ids:
            return raw.reshape(raw.shape[:3])
        scale, zero_point = self._output["quantization"]
        logits = raw.astype(np.float32)
        if scale:
            logits = (logits - np.float32(zero_point)) * np.float32(scale)
        return np.moveaxis(logits, 3, 1)

    def _images(self, contents: Sequence[RgbImage]) -> NDArray[Any]:
        dtype = self._input["dtype"]
        if self.settings.mean is None:
            pixels = self.pixels(contents)
            return pixels if dtype is np.uint8 else (pixels - np.uint8(128)).view(np.int8)
        images = np.ascontiguousarray(np.moveaxis(self.normalised(contents), 1, 3))
        scale, zero_point = self._input["quantization"]
        if dtype is np.float32 or not scale:
            return images
        limits = np.iinfo(dtype)
        quantised: NDArray[Any] = np.rint(images / scale) + zero_point
        return np.clip(quantised, limits.min, limits.max).astype(dtype)

    def _check_output(self) -> bool:
        """True for class ids, False for logits; raises ModelError for anything else."""
        shape, kind = self._output["shape"].tolist(), np.dtype(self._output["dtype"]).kind
        is_quantised = bool(self._output["quantization"][0])
        if kind in "iu" and not is_quantised and (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)):
            return True
        if len(shape) == 4 and (kind == "f" or is_quantised):
            self.check_outputs(shape[3])
            return False
        raise ModelError(
            f'model "{self.name}": {self.settings.path} answers {_described(self._output)}; wanted class ids (1, h, w) '
            "or logits (1, h, w, C)"
        )


def _described(tensor: dict[str, Any]) -> str:
    return f"{np.dtype(tensor['dtype'])} of shape {tuple(tensor['shape'].tolist())}"
