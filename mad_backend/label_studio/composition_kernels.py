"""The compiled loop that gives every pixel its one class, out of regions that overlap.

Imported late by its users, since numba takes a second to import. Compiled code is cached on disk, and the GIL is
released while it runs.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True, boundscheck=False)
def paint(
    alphas: NDArray[np.uint8],
    layers: NDArray[np.int64],
    predicted: NDArray[np.int64],
    solid: int,
    label_map: NDArray[np.uint8],
    areas: NDArray[np.int64],
    lost: NDArray[np.int64],
) -> int:
    """Gives the pixels of `label_map` (n,) the class of the layer that wins; those of no layer stay as they are.

    `layers` (L, 2) int64 are row of `alphas` (A, n) uint8 and class, in paint order, and so are `predicted` (P, 2); a
    pixel is in one from `solid` on, and was changed in a layer if no predicted one of the class has it. The last
    changed layer wins, else the last one. Counts into `areas` (L,) the pixels of each layer, and into `lost` (256, 256)
    those which a class (row) has lost to another (column). Returns how many have another class than predicted.
    """
    changes = 0
    for i in range(label_map.size):
        before = np.int64(label_map[i])
        for n in range(len(predicted)):
            if alphas[predicted[n, 0], i] >= solid:
                before = predicted[n, 1]
        winner, best, covering = np.int64(label_map[i]), -1, 0
        for n in range(len(layers)):
            if alphas[layers[n, 0], i] < solid:
                continue
            covering += 1
            areas[n] += 1
            rank = n + len(layers)
            for m in range(len(predicted)):
                if predicted[m, 1] == layers[n, 1] and alphas[predicted[m, 0], i] >= solid:
                    rank = n
            if rank > best:
                winner, best = layers[n, 1], rank
        changes += winner != before
        label_map[i] = winner
        if covering > 1:
            _count_lost(alphas[:, i], layers, solid, winner, lost)
    return changes


@njit(cache=True, nogil=True, boundscheck=False)
def _count_lost(
    alphas: NDArray[np.uint8], layers: NDArray[np.int64], solid: int, winner: int, lost: NDArray[np.int64]
) -> None:
    """Adds the classes that lose one pixel, each once, to `lost`."""
    for n in range(len(layers)):
        if alphas[layers[n, 0]] >= solid and layers[n, 1] != winner:
            is_first = True
            for m in range(n):
                if layers[m, 1] == layers[n, 1] and alphas[layers[m, 0]] >= solid:
                    is_first = False
            lost[layers[n, 1], winner] += is_first
