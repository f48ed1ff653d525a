"""From a network's answer on its canvas to the class of every pixel of a frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mad_backend.models.canvas import Size

if TYPE_CHECKING:
    from torch import Tensor

    from mad_backend.core.class_choice import ClassIds


@dataclass(frozen=True)
class Place:
    """Where a frame lies: sizes of the network's input, of the frame's content at its top left, and of the frame."""

    input: Size
    content: Size
    frame: Size

    def choose(self, logits: NDArray[np.float32], *, align_corners: bool) -> "ClassIds":
        """The frame's own class ids from (C, h, w) logits over the input: the largest, interpolated, at each pixel."""
        from mad_backend.core.class_choice import choose_classes

        return choose_classes(logits, self.input, self.content, align_corners, self.frame)

    def choose_on_device(self, logits: "Tensor", *, align_corners: bool) -> "Tensor":
        """The same where the logits are, for GPUs: (H, W) int64."""
        import torch

        from mad_backend.core.class_choice import taps

        for axis in (1, 2):
            found = taps(
                logits.shape[axis],
                self.input[axis - 1],
                self.content[axis - 1],
                self.frame[axis - 1],
                align_corners,
            )
            low, high, weight = (
                torch.from_numpy(v).to(logits.device) for v in (found.low, found.high, found.weight)
            )
            ends = logits.index_select(axis, low), logits.index_select(axis, high)
            logits = torch.lerp(*ends, weight.reshape((-1, 1) if axis == 1 else (-1,)))
        return logits.argmax(0)

    def nearest(self, own: NDArray[np.integer]) -> NDArray[np.integer]:
        """A map of class ids over the input, of any resolution, as a map of the frame: nearest neighbour."""
        rows, columns = (
            ((np.arange(frame) + 0.5) * content / frame * count / whole).astype(np.int64)
            for count, whole, content, frame in zip(
                own.shape, self.input, self.content, self.frame, strict=True
            )
        )
        return own[rows[:, None], columns]
