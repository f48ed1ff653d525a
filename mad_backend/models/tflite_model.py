"""TFLite models that answer with label maps, e.g. the quantised DeepLab family."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mad_backend.core.grid import Grid
from mad_backend.core.labels import LabelMap, LabelSet
from mad_backend.core.records import Frame
from mad_backend.errors import ModelError
from mad_backend.models.base import SegmentationModel, missing_file
from mad_backend.settings import ModelSettings

PAD_VALUE = 128
"""What the models in question were padded with: the mean of 0..255 input."""


class TfliteModel(SegmentationModel):
    """`path` is a .tflite file: input (1, H, W, 3) uint8 RGB, output (1, H, W) class ids. `own_classes` is required.

    pad "square": the frame lies at the top left of the canvas; pad "none": it is stretched to the canvas.
    """

    def __init__(self, name: str, settings: ModelSettings, labels: LabelSet, grid: Grid) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if not settings.path.is_file():
            raise missing_file(name, settings.path, "a .tflite file")
        if settings.own_classes is None:
            raise ModelError(f'model "{name}": a TFLite file names no classes; list them under own_classes')
        try:
            self._interpreter = Interpreter(model_path=str(settings.path))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f'model "{name}": cannot load {settings.path}: {error}') from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        if self._input["dtype"] is not np.uint8 or len(self._output["shape"]) != 3:
            raise ModelError(f'model "{name}": {settings.path} must take uint8 images and answer label maps')
        super().__init__(name, settings, labels, grid, settings.own_classes)

    @classmethod
    def files(cls, settings: ModelSettings) -> Iterable[Path]:
        return (settings.path,)

    def predict(self, frames: Sequence[Frame]) -> list[LabelMap | None]:
        return [self._predict(frame) for frame in frames]

    def _predict(self, frame: Frame) -> LabelMap:
        _, side_y, side_x, _ = self._input["shape"]
        height, width = frame.rgb.shape[:2]
        stretched = self.settings.pad == "none" or height > side_y or width > side_x
        canvas = np.full((side_y, side_x, 3), PAD_VALUE, np.uint8)
        if stretched:
            canvas[:] = np.asarray(
                Image.fromarray(frame.rgb).resize((side_x, side_y), Image.Resampling.BILINEAR)
            )
        else:
            canvas[:height, :width] = frame.rgb
        self._interpreter.set_tensor(self._input["index"], canvas[None])
        self._interpreter.invoke()
        own = self._interpreter.get_tensor(self._output["index"])[0].astype(np.uint8)
        if stretched:
            own = np.asarray(Image.fromarray(own).resize((width, height), Image.Resampling.NEAREST))
        chosen: LabelMap = self.table[own[:height, :width]]
        return chosen
