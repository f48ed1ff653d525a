"""Label maps as runs: a map of a real scene is a few thousand runs, and two of them are compared without pixels."""

from dataclasses import dataclass

import numpy as np

from mad_backend.core.labels import LabelMap
from mad_backend.core.metrics import JointHistogram
from mad_backend.errors import CorruptFileError


@dataclass(frozen=True)
class RunMap:
    """A (height, width) label map in raster order: `count` class ids, then as many run lengths as varints.

    A varint holds seven bits a byte, least first; the eighth bit says that more follow.
    """

    height: int
    width: int
    count: int
    payload: bytes

    @classmethod
    def of(cls, label_map: LabelMap) -> "RunMap":
        """Runs of a (H, W) uint8 map."""
        from mad_backend.core.kernels import encode_runs

        flat = np.ascontiguousarray(label_map).ravel()
        values, lengths = np.empty(flat.size, np.uint8), np.empty(2 * flat.size, np.uint8)
        count, used = encode_runs(flat, values, lengths)
        height, width = label_map.shape
        return cls(height, width, count, values[:count].tobytes() + lengths[:used].tobytes())

    def label_map(self) -> LabelMap:
        """(H, W) uint8; raises CorruptFileError when the runs do not fill the map exactly."""
        from mad_backend.core.kernels import decode_runs

        flat = np.empty(self.height * self.width, np.uint8)
        if not decode_runs(np.frombuffer(self.payload, np.uint8), self.count, flat):
            raise CorruptFileError(f"{self.count} runs do not fill {self.height} x {self.width} pixels")
        return flat.reshape(self.height, self.width)

    def count_with(self, columns: "RunMap", joint: JointHistogram) -> None:
        """Adds the joint histogram of this map (rows) and `columns` to `joint`, (C + 1, C + 1) int64.

        Raises ValueError when the shapes differ, CorruptFileError when either is no proper list of runs.
        """
        from mad_backend.core.kernels import merge_runs

        if (self.height, self.width) != (columns.height, columns.width):
            raise ValueError(
                f"label maps of shapes {(self.height, self.width)} and {(columns.height, columns.width)} cannot be "
                "compared pixel by pixel"
            )
        one, two = np.frombuffer(self.payload, np.uint8), np.frombuffer(columns.payload, np.uint8)
        if not merge_runs(one, self.count, two, columns.count, joint):
            raise CorruptFileError("the runs of two label maps of one shape do not end at the same pixel")
