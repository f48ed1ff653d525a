"""Label maps as polygons: one ring for each component, cut open from hole to hole, along the edges of pixels."""

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import LabelMap


def outlines(
    label_map: LabelMap, class_ids: Collection[int], tolerance: float
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """(class id, ring) of each 4-connected component of a (H, W) map that is of `class_ids`, in order of first pixels.

    A ring is (n, 2) int32: corners (x, y) of pixels, (0, 0) to (W, H), the last one joined to the first. A hole is
    joined to what is around it by a cut without width, so that the even-odd and the non-zero rule both leave it empty.
    With `tolerance` 0 the ring is the component's; otherwise points are left out as long as the outline stays within
    `tolerance` pixels of the component's, and the component keeps at least half its area: neighbours may then overlap
    or leave gaps by as much.
    """
    from mad_backend.label_studio.polygon_kernels import find_cuts, simplify, walk_around
    from mad_backend.label_studio.speck_kernels import number_components

    height, width = label_map.shape
    components, sizes = np.empty((height, width), np.int32), np.empty(label_map.size, np.int32)
    count = number_components(np.ascontiguousarray(label_map), components, sizes)
    padded = np.full((height + 2, width + 2), -1, np.int32)
    padded[1:-1, 1:-1] = components
    classes = np.empty(count, np.uint8)
    classes[components.reshape(-1)] = label_map.reshape(-1)
    is_wanted = np.isin(classes, list(class_ids))
    cuts, firsts = np.zeros((height + 1, width + 1), np.uint8), np.empty((count, 2), np.int32)
    most = find_cuts(padded, is_wanted, cuts, firsts)
    points, is_fixed = np.empty((most, 2), np.int32), np.empty(most, np.bool_)
    for component in np.flatnonzero(is_wanted).tolist():
        first_x, first_y = firsts[component].tolist()
        used = walk_around(padded, cuts, component, first_x, first_y, points, is_fixed)
        is_kept = np.ones(used, np.bool_)
        if tolerance:
            simplify(points[:used], is_fixed[:used], tolerance, is_kept)
        yield int(classes[component]), points[:used][is_kept]


def percent(ring: NDArray[np.int32], height: int, width: int) -> list[list[float]]:
    """A ring's [[x, y], ...] in percent of an image's width and height; off by a two-hundredth of a pixel at most."""
    digits = len(str(max(height, width)))
    points: list[list[float]] = np.round(ring * (100 / width, 100 / height), digits).tolist()
    return points
