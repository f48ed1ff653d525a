"""Compiled loops that walk around the components of a label map along pixel edges, and that simplify what they walked.

Vertices are corners of pixels, (x, y) from (0, 0) to (W, H). Edges are directed so that the component lies to their
right, as seen on the screen: its outer ring is clockwise. Where two of its pixels meet at a corner only, the walk turns
right, which keeps them apart: components are 4-connected. Imported late by its users, since numba takes a second to
import. Compiled code is cached on disk, and the GIL is released while it runs.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ids = NDArray[np.int32]

_EAST, _SOUTH, _WEST, _NORTH = 0, 1, 2, 3
_STEP_X = np.array([1, 0, -1, 0])
_STEP_Y = np.array([0, 1, 0, -1])
_CUT_UP, _CUT_DOWN = 1, 2


@njit(cache=True, nogil=True, boundscheck=False)
def _is_border(padded: Ids, own: int, x: int, y: int, direction: int) -> bool:
    """Whether an edge of component `own` leaves vertex (x, y); `padded` (H + 2, W + 2) has a rim of no component."""
    # The two pixels beside the edge, the one to the right of it first; padded[y + 1, x + 1] is below and right of it.
    if direction == _EAST:
        return bool(padded[y + 1, x + 1] == own and padded[y, x + 1] != own)
    if direction == _SOUTH:
        return bool(padded[y + 1, x] == own and padded[y + 1, x + 1] != own)
    if direction == _WEST:
        return bool(padded[y, x] == own and padded[y + 1, x] != own)
    return bool(padded[y, x + 1] == own and padded[y, x] != own)


@njit(cache=True, nogil=True, boundscheck=False)
def _is_cut(padded: Ids, cuts: NDArray[np.uint8], own: int, x: int, y: int, direction: int) -> bool:
    """Whether a cut through component `own` leaves vertex (x, y)."""
    if direction == _SOUTH:
        return bool(cuts[y, x] & _CUT_DOWN and padded[y + 1, x + 1] == own)
    return bool(direction == _NORTH and cuts[y, x] & _CUT_UP and padded[y, x + 1] == own)


@njit(cache=True, nogil=True, boundscheck=False)
def _walk_ring(padded: Ids, own: int, x: int, y: int, direction: int, is_seen: NDArray[np.bool_]) -> int:
    """Marks the pixels whose lower edge is part of the ring that begins so; how many edges the ring has."""
    first_x, first_y, first_direction, edges = x, y, direction, 0
    while True:
        if direction == _WEST:
            is_seen[y - 1, x - 1] = True
        x, y, edges = x + _STEP_X[direction], y + _STEP_Y[direction], edges + 1
        direction = (direction + 1) & 3
        while not _is_border(padded, own, x, y, direction):
            direction = (direction + 3) & 3
        if x == first_x and y == first_y and direction == first_direction:
            return edges


@njit(cache=True, nogil=True, boundscheck=False)
def find_cuts(padded: Ids, is_wanted: NDArray[np.bool_], cuts: NDArray[np.uint8], firsts: Ids) -> int:
    """Cuts a component open from the top of each of its holes up to the ring above, so that one walk sees all rings.

    `padded` (H + 2, W + 2) holds component numbers in order of first pixels, -1 on its rim; only those that are
    `is_wanted` count. Marks the vertices of cuts in `cuts` (H + 1, W + 1), and writes where components begin into
    `firsts` (n, 2), as (x, y). Returns how many vertices all walks together have at most.
    """
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    is_seen, count, most = np.zeros((height, width), np.bool_), 0, 0
    for y in range(height):
        for x in range(width):
            own = padded[y + 1, x + 1]
            if own == count:
                firsts[own, 0], firsts[own, 1] = x, y
                count += 1
                if is_wanted[own]:
                    most += _walk_ring(padded, own, x, y, _EAST, is_seen)
            if not is_wanted[own] or padded[y + 2, x + 1] == own or is_seen[y, x]:
                continue
            # A ring met for the first time at its top: a hole's. A cut along a line of pixels adds no crossing.
            most += _walk_ring(padded, own, x + 1, y + 1, _WEST, is_seen) + 4
            top = y + 1
            cuts[top, x] |= _CUT_UP
            top -= 1
            while padded[top, x] == own and padded[top, x + 1] == own:
                cuts[top, x] |= _CUT_UP | _CUT_DOWN
                top -= 1
            cuts[top, x] |= _CUT_DOWN
    return most


@njit(cache=True, nogil=True, boundscheck=False)
def walk_around(
    padded: Ids, cuts: NDArray[np.uint8], own: int, x: int, y: int, points: Ids, is_fixed: NDArray[np.bool_]
) -> int:
    """Fills `points` (n, 2) with the corners of component `own`, whose first pixel is (x, y), holes and cuts included.

    Where a cut begins or ends, and where it meets a ring, the corner `is_fixed`. Returns how many corners there are.
    """
    first_x, first_y, direction, used, was_cut = x, y, _NORTH, 0, False
    while True:
        last = direction
        direction = (last + 1) & 3
        while True:
            is_cut = _is_cut(padded, cuts, own, x, y, direction)
            if is_cut or _is_border(padded, own, x, y, direction):
                break
            direction = (direction + 3) & 3
        if used and x == first_x and y == first_y and direction == _EAST:
            return used
        if direction != last or is_cut != was_cut or not used:
            points[used, 0], points[used, 1] = x, y
            is_fixed[used] = is_cut != was_cut
            used += 1
        was_cut = is_cut
        x, y = x + _STEP_X[direction], y + _STEP_Y[direction]


@njit(cache=True, nogil=True, boundscheck=False)
def _distance(points: Ids, n: int, a: int, b: int) -> float:
    """Squared, of point `n` from the segment between points `a` and `b`."""
    px, py = points[n, 0] - points[a, 0], points[n, 1] - points[a, 1]
    sx, sy = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1]
    length = sx * sx + sy * sy
    along = min(max((px * sx + py * sy) / length, 0.0), 1.0) if length else 0.0
    dx, dy = px - along * sx, py - along * sy
    return float(dx * dx + dy * dy)


@njit(cache=True, nogil=True, boundscheck=False)
def _simplify_chain(
    points: Ids, start: int, stop: int, tolerance: float, is_kept: NDArray[np.bool_], stack: Ids
) -> None:
    """Douglas and Peucker's: keeps those between `start` and `stop` without which one would be too far from the rest.

    Places count on beyond the last point, to the first again.
    """
    n, depth = len(points), 1
    stack[0, 0], stack[0, 1] = start, stop
    while depth:
        depth -= 1
        a, b = stack[depth, 0], stack[depth, 1]
        farthest, most = a, tolerance * tolerance
        for i in range(a + 1, b):
            far = _distance(points, i % n, a % n, b % n)
            # Of equal ones that in the middle: a comb would be split at its end, tooth by tooth.
            if far > most or (far == most and farthest > a and i <= (a + b) // 2):
                farthest, most = i, far
        if farthest > a:
            is_kept[farthest % n] = True
            stack[depth, 0], stack[depth, 1] = a, farthest
            stack[depth + 1, 0], stack[depth + 1, 1] = farthest, b
            depth += 2


@njit(cache=True, nogil=True, boundscheck=False)
def _area(points: Ids, is_kept: NDArray[np.bool_]) -> float:
    """Twice the area inside the kept points, holes taken off."""
    area, n, last = 0.0, len(points), -1
    for i in range(n):
        if is_kept[i]:
            last = i
    for i in range(n):
        if is_kept[i]:
            area += points[last, 0] * points[i, 1] - points[i, 0] * points[last, 1]
            last = i
    return abs(area)


@njit(cache=True, nogil=True, boundscheck=False)
def _farthest(points: Ids) -> int:
    """The point that is farthest from the first."""
    most, found = 0, 0
    for i in range(len(points)):
        away = (points[i, 0] - points[0, 0]) ** 2 + (points[i, 1] - points[0, 1]) ** 2
        if away > most:
            most, found = away, i
    return found


@njit(cache=True, nogil=True, boundscheck=False)
def simplify(points: Ids, is_fixed: NDArray[np.bool_], tolerance: float, is_kept: NDArray[np.bool_]) -> None:
    """Chooses corners `is_kept` of a ring (n, 2): every one left out is within `tolerance` of what connects the kept.

    Those `is_fixed` are kept. A ring that would lose or gain more than half its area is simplified less.
    """
    n = len(points)
    stack, is_end = np.empty((n + 2, 2), np.int32), np.empty(n, np.bool_)
    is_kept[:] = True
    whole = _area(points, is_kept)
    while tolerance > 0.25:  # pixels; corners are whole numbers, so that hardly one goes for less
        first, kept, has_fixed = 0, 0, False
        for i in range(n - 1, -1, -1):
            is_end[i] = is_fixed[i]
            if is_fixed[i]:
                first, has_fixed = i, True
        if not has_fixed:
            is_end[0] = is_end[_farthest(points)] = True
        is_kept[:] = is_end
        start = first
        for i in range(first + 1, first + n + 1):
            if is_end[i % n]:
                _simplify_chain(points, start, i, tolerance, is_kept, stack)
                start = i
        for i in range(n):
            kept += is_kept[i]
        if kept >= 3 and 2 * abs(_area(points, is_kept) - whole) <= whole:
            return
        tolerance /= 2
    is_kept[:] = True
