"""Pictures of label maps for human eyes: class colours over the photo, with borders and a legend."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import VOID, LabelMap, LabelSet, Mask, RgbImage

VOID_COLOR: Final = (224, 224, 192)
"""Void's colour in PASCAL VOC; on the overlay it is hatched, so that no class colour is mistaken for it."""
VOID_NAME: Final = "void"

_CLASS_OPACITY: Final = 0.55
_VOID_OPACITY: Final = (0.35, 0.8)
_HATCH_WIDTH: Final = 4
_PIXELS_PER_LINE_PIXEL: Final = 900


def overlay(rgb: RgbImage, label_map: LabelMap, labels: LabelSet) -> RgbImage:
    """(H, W, 3) uint8: the photo with classes blended in, background untouched, void hatched, borders drawn.

    A border is two lines, white on one side and black on the other, so that one of them contrasts with any
    photo and any class colour. Raises ValueError when photo and label map differ in size.
    """
    if rgb.shape[:2] != label_map.shape or rgb.shape[2:] != (3,):
        raise ValueError(f"photo {rgb.shape} and label map {label_map.shape}: wanted (H, W, 3) and (H, W)")
    if not label_map.size:
        return rgb.copy()
    picture = _blended(rgb, label_map, labels)
    width = max(1, round(max(label_map.shape) / _PIXELS_PER_LINE_PIXEL))
    picture[_differs(label_map, width)] = 255
    picture[_differs(label_map[::-1, ::-1], width)[::-1, ::-1]] = 0
    return picture


def legend(label_map: LabelMap, labels: LabelSet) -> list[tuple[str, str]]:
    """(name, "#rrggbb") of the classes to be seen on the overlay, by id, void last.

    The background is left out: it has no colour there.
    """
    present = set(np.unique(label_map).tolist())
    shown = [labels.classes[i] for i in labels.foreground_ids if i in present]
    entries = [(c.name, hex_color(c.color)) for c in shown]
    return [*entries, (VOID_NAME, hex_color(VOID_COLOR))] if VOID in present else entries


def hex_color(color: tuple[int, int, int]) -> str:
    """(red, green, blue) as "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _blended(rgb: RgbImage, label_map: LabelMap, labels: LabelSet) -> RgbImage:
    """(H, W, 3): class colours over the photo, in 256ths: floating point takes twice the time."""
    opacity = np.full(256, _CLASS_OPACITY)
    if labels.has_background:
        opacity[0] = 0.0
    photo, color = _shares(opacity, labels.palette())
    # `take`, and a share for each channel: a third of the time of indexing and broadcasting.
    mixed = rgb * photo.repeat(3).reshape(-1, 3).take(label_map, axis=0)
    mixed += color.take(label_map, axis=0)
    mixed >>= 8
    picture = mixed.astype(np.uint8)
    rows, columns = np.nonzero(label_map == VOID)
    if rows.size:
        stripe = (rows + columns) // _HATCH_WIDTH % 2
        photo, color = _shares(np.array(_VOID_OPACITY), np.array(VOID_COLOR))
        picture[rows, columns] = (rgb[rows, columns] * photo[stripe][:, None] + color[stripe]) >> 8
    return picture


def _shares(
    opacity: NDArray[np.float64], color: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """(n,) share of the photo and (n, 3) addition of the colour, in 256ths, rounded, for (n,) opacities."""
    photo = np.rint(256 * (1 - opacity)).astype(np.uint16)
    return photo, ((256 - photo[:, None]) * color.astype(np.uint16) + 128).astype(np.uint16)


def _differs(label_map: LabelMap, width: int) -> Mask:
    """(H, W) bool: pixels with another class at most `width` pixels to the right or below."""
    found = np.zeros(label_map.shape, np.bool_)
    for step in range(1, width + 1):
        found[:-step] |= label_map[:-step] != label_map[step:]
        found[:, :-step] |= label_map[:, :-step] != label_map[:, step:]
    return found
