"""Compiled loops that find the specks of a label map and give them to what surrounds them.

Imported late by its users, since numba takes a second to import. Compiled code is cached on disk, and the GIL is
released while it runs.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ids = NDArray[np.int32]


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _root(parents: Ids, component: int) -> int:
    while parents[component] != component:
        parents[component] = parents[parents[component]]
        component = parents[component]
    return component


@njit(cache=True, nogil=True, boundscheck=False)
def number_components(label_map: NDArray[np.uint8], components: Ids, sizes: Ids) -> int:
    """Numbers the 4-connected components of a (H, W) map into `components` (H, W) int32, in order of first pixels.

    Fills as many of `sizes` (H * W,) int32 with their pixels, and returns how many there are.
    """
    height, width = label_map.shape
    parents = np.empty(label_map.size, np.int32)
    used = np.int32(0)
    for y in range(height):
        for x in range(width):
            is_left = x > 0 and label_map[y, x - 1] == label_map[y, x]
            is_above = y > 0 and label_map[y - 1, x] == label_map[y, x]
            if is_left:
                components[y, x] = components[y, x - 1]
                # Where the pixel above the left one is of the class too, both are joined already.
                if is_above and label_map[y - 1, x - 1] != label_map[y, x]:
                    one, other = _root(parents, components[y, x]), _root(parents, components[y - 1, x])
                    parents[max(one, other)] = min(one, other)
            elif is_above:
                components[y, x] = components[y - 1, x]
            else:
                components[y, x] = used
                parents[used] = used
                used += 1
    count = np.int32(0)
    numbers = np.empty(used, np.int32)
    for component in range(used):  # a parent has a smaller number, so it is there already
        if parents[component] == component:
            numbers[component] = count
            sizes[count] = 0
            count += 1
        else:
            numbers[component] = numbers[parents[component]]
    for y in range(height):
        for x in range(width):
            number = numbers[components[y, x]]
            components[y, x] = number
            sizes[number] += 1
    return int(count)


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _neighbours(i: int, height: int, width: int, found: Ids) -> int:
    """Writes the up to four neighbours of pixel `i` of a flat map into `found`; returns how many there are."""
    count = 0
    x = i % width
    if x > 0:
        found[count] = i - 1
        count += 1
    if x < width - 1:
        found[count] = i + 1
        count += 1
    if i >= width:
        found[count] = i - width
        count += 1
    if i < (height - 1) * width:
        found[count] = i + width
        count += 1
    return count


@njit(cache=True, nogil=True, boundscheck=False)
def _pixels_of_specks(numbers: Ids, sizes: Ids, specks: NDArray[np.int64]) -> tuple[Ids, Ids]:
    """(starts, pixels): those of a speck n are the sizes[n] from pixels[starts[n]] on; other components have none."""
    starts, total = np.full(sizes.size, -1, np.int32), 0
    for speck in specks:
        starts[speck] = total
        total += sizes[speck]
    pixels, filled = np.empty(total, np.int32), np.zeros(sizes.size, np.int32)
    for i in range(numbers.size):
        number = numbers[i]
        if starts[number] >= 0:
            pixels[starts[number] + filled[number]] = i
            filled[number] += 1
    return starts, pixels


@njit(cache=True, nogil=True, boundscheck=False)
def _most_frequent_beside(
    own: Ids, label_map: NDArray[np.uint8], components: Ids, speck: int, borders: Ids, counts: Ids
) -> int:
    """The class most frequent on the border of the pixels `own` of `speck`, of equal ones the smallest; -1: none."""
    height, width = label_map.shape
    flat, numbers = label_map.reshape(-1), components.reshape(-1)
    for class_id in range(256):
        counts[class_id] = 0
    for i in own:
        for k in range(_neighbours(i, height, width, borders)):
            if numbers[borders[k]] != speck:
                counts[flat[borders[k]]] += 1
    winner = 0
    for class_id in range(256):
        if counts[class_id] > counts[winner]:
            winner = class_id
    return winner if counts[winner] else -1


@njit(cache=True, nogil=True, boundscheck=False)
def give_away_specks(
    label_map: NDArray[np.uint8], components: Ids, sizes: Ids, specks: NDArray[np.int64]
) -> None:
    """One pass over some components of a (H, W) map, `specks`, in their order.

    Each becomes of the class most frequent on its border, of equal ones the smallest; what has grown by then waits for
    the next pass, and the whole map stays as it is. `sizes` are of all `components`.
    """
    height, width = label_map.shape
    flat, numbers = label_map.reshape(-1), components.reshape(-1)
    starts, pixels = _pixels_of_specks(numbers, sizes, specks)
    has_grown = np.zeros(sizes.size, np.bool_)
    borders, counts = np.empty(4, np.int32), np.empty(256, np.int32)
    for speck in specks:
        if has_grown[speck]:
            continue
        own = pixels[starts[speck] : starts[speck] + sizes[speck]]
        winner = _most_frequent_beside(own, label_map, components, speck, borders, counts)
        if winner < 0:
            continue
        for i in own:
            flat[i] = winner
        for i in own:
            for k in range(_neighbours(i, height, width, borders)):
                other = numbers[borders[k]]
                if other != speck and flat[borders[k]] == winner:
                    has_grown[other] = True
        has_grown[speck] = True
