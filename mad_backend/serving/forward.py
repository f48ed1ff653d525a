"""Frames through a model, so that a frame which makes it fail costs no other its answer."""

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import MadError, ModelError
from mad_backend.models.base import SegmentationModel

log = logging.getLogger(__name__)

_FATAL: Final = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction",
    "launch timed out",
    "uncorrectable ECC error",
    "hardware stack error",
)
"""What CUDA says when every later call in the process will fail too, unlike that memory ran out."""


class ModelLostError(ModelError):
    """Raised when a model can answer nothing more in this process: its GPU has failed under it."""


def forward(model: SegmentationModel, frames: Sequence[Frame]) -> list[LabelMap | MadError]:
    """One (h, w) uint8 map per frame, or why there is none.

    A batch that fails is tried again by halves: one bad frame costs few forward passes, and where memory ran out,
    half a batch may fit. Raises ModelLostError.
    """
    if not frames:
        return []
    try:
        return _answers(model, frames)
    except Exception as error:  # whatever a network raises (torch, ONNX) is its frames' fault alone
        if _is_lost(error):
            raise ModelLostError(
                f'model "{model.name}" can answer nothing more before its process is started anew: {str(error)[:400]}'
            ) from error
        if len(frames) == 1:
            return [_reason(model, frames[0], error)]
    # After the handler, which holds the failed pass's memory by its traceback.
    middle = len(frames) // 2
    return [*forward(model, frames[:middle]), *forward(model, frames[middle:])]


def _answers(model: SegmentationModel, frames: Sequence[Frame]) -> list[LabelMap | MadError]:
    return [
        _answer(model, frame, label_map)
        for frame, label_map in zip(frames, model.predict(frames), strict=True)
    ]


def _answer(model: SegmentationModel, frame: Frame, label_map: LabelMap | None) -> LabelMap | MadError:
    if label_map is None:
        return ModelError(f'model "{model.name}" has no answer for image "{frame.image_id}"')
    if label_map.shape != frame.rgb.shape[:2] or label_map.dtype != np.uint8:
        return ModelError(
            f'model "{model.name}" answered image "{frame.image_id}" of shape {frame.rgb.shape} with a label map of '
            f"shape {label_map.shape}, {label_map.dtype}"
        )
    return label_map


def _reason(model: SegmentationModel, frame: Frame, error: Exception) -> ModelError:
    """A new error, without the traceback by which the old one holds tensors."""
    if isinstance(error, MadError):
        return ModelError(str(error))
    log.error('model "%s" failed on image "%s"', model.name, frame.image_id, exc_info=error)
    return ModelError(f'model "{model.name}" failed on image "{frame.image_id}": {str(error)[:400]}')


def _is_lost(error: Exception) -> bool:
    return any(fault in str(error) for fault in _FATAL)
