"""Image ids as one run of UTF-8 bytes: no Python object per image until somebody asks for one."""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class IdColumn(Sequence[str]):
    """n image ids; id i is `text[offsets[i]:offsets[i + 1]]`. UTF-8 bytes sort as the strings do, by code point."""

    __slots__ = ("offsets", "text")

    def __init__(self, offsets: NDArray[np.int32], text: NDArray[np.uint8]) -> None:
        self.offsets = offsets
        self.text = text

    @classmethod
    def of(cls, image_ids: Iterable[str]) -> "IdColumn":
        """The same ids in the same order; those that are a column already are not copied."""
        if isinstance(image_ids, IdColumn):
            return image_ids
        encoded = [image_id.encode() for image_id in image_ids]
        offsets = np.zeros(len(encoded) + 1, np.int32)
        np.cumsum([len(one) for one in encoded], out=offsets[1:])
        return cls(offsets, np.frombuffer(b"".join(encoded), np.uint8))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self.text[self.offsets[place] : self.offsets[place + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))
