"""A batch as one block of memory: handing a tensor from process to process takes half a millisecond, however small."""

import io
import pickle
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes; what vector instructions like best."""
MOST_IN_A_BYTE = 255


class PackedBatch(NamedTuple):
    """`layout` is a pickle without the contents of arrays, which lie in `block` (uint8) at `places`, (begin, end)."""

    layout: bytes
    places: list[tuple[int, int]]
    block: torch.Tensor


def pack(batch: Any) -> PackedBatch:
    """Of any structure that can be pickled; the contents of its tensors and arrays are copied once."""
    buffers: list[memoryview] = []
    layout = io.BytesIO()
    _TensorPickler(layout, protocol=5, buffer_callback=lambda b: buffers.append(b.raw())).dump(batch)
    places, end = [], 0
    for buffer in buffers:
        begin = -(-end // ALIGNMENT) * ALIGNMENT
        end = begin + buffer.nbytes
        places.append((begin, end))
    block = torch.empty(end, dtype=torch.uint8)
    block.share_memory_()  # type: ignore[no-untyped-call] # before it is filled, which saves a copy
    for (begin, stop), buffer in zip(places, buffers, strict=True):
        block.numpy()[begin:stop] = buffer
    return PackedBatch(layout.getvalue(), places, block)


def unpack(packed: PackedBatch) -> Any:
    """The batch, its tensors and arrays views of the block. Only for what a process of ours has packed."""
    block = memoryview(packed.block.numpy())  # type: ignore[arg-type]
    return pickle.loads(packed.layout, buffers=[block[begin:end] for begin, end in packed.places])  # noqa: S301 - ours


class _TensorPickler(pickle.Pickler):
    """Tensors go the way of arrays, whose contents pickle leaves out; label maps, int64 by custom, as bytes."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is torch.Tensor and value.device.type == "cpu" and value.dtype in _SHARED_TYPES:
            array = np.ascontiguousarray(value.detach().numpy())
            if array.dtype == np.int64 and array.size and array.min() >= 0 and array.max() <= MOST_IN_A_BYTE:
                return _widened, (array.astype(np.uint8),)
            return torch.from_numpy, (array,)
        return NotImplemented


def _widened(array: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(array).long()


_SHARED_TYPES = frozenset(
    {torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64, torch.bool}
)
"""What numpy has as well."""
