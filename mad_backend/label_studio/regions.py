"""The areas in any ML backend's answer: brush, bitmask, polygon and rectangle regions as masks with a label."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from mad_backend.core.labels import Mask
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.brush_rle import decode_alpha
from mad_backend.label_studio.results import SOLID_ALPHA, Region, decode_bitmask, field_of
from mad_backend.label_studio.shapes import polygon, rectangle

MAX_PIXELS: Final = 200_000_000
"""As large as the largest image a pool may hold: a few bytes of run lengths can claim any size."""

NO_AREAS: Final = frozenset({"relation", "choices", "rating", "number", "textarea", "taxonomy"})
"""Types of results that say something about the image but mark no pixels."""


class AreaKind(StrEnum):
    """Types of regions that are understood, as Label Studio writes them."""

    BRUSH = "brushlabels"
    BITMASK = "bitmasklabels"
    POLYGON = "polygonlabels"
    RECTANGLE = "rectanglelabels"


@dataclass(frozen=True)
class Area:
    """One region, not yet decoded: its place in the answer (from 1), label, and the image's size it is given for."""

    place: int
    kind: AreaKind
    label: str
    height: int
    width: int
    value: Region

    def mask(self) -> Mask:
        """(height, width) bool; raises LabelFormatError where the region cannot be decoded."""
        try:
            return self._decoded()
        except LabelFormatError as error:
            raise LabelFormatError(f"region {self.place}: {error}") from error

    def _decoded(self) -> Mask:
        match self.kind:
            case AreaKind.BRUSH:
                return _brush(self.value, self.height, self.width)
            case AreaKind.BITMASK:
                return decode_bitmask(field_of(self.value, "imageDataURL"), self.height, self.width)
            case AreaKind.POLYGON:
                return polygon(self.value, self.height, self.width)
            case AreaKind.RECTANGLE:
                return rectangle(self.value, self.height, self.width)
            case _:
                assert_never(self.kind)


def areas_of(result: Sequence[object]) -> list[Area]:
    """The regions of one task's `result` that mark pixels, in paint order.

    Raises LabelFormatError for a region of another type, without exactly one label, on a rotated image or of an
    impossible size.
    """
    return [
        _area(place, region)
        for place, region in enumerate(result, start=1)
        if field_of(region, "type") not in NO_AREAS
    ]


def _area(place: int, region: object) -> Area:
    kind, value = field_of(region, "type"), field_of(region, "value")
    if kind not in tuple(AreaKind):
        raise LabelFormatError(f"region {place} has type {str(kind)[:40]!r}; wanted {', '.join(AreaKind)}")
    named = field_of(value, kind)
    if not (isinstance(named, list) and len(named) == 1 and isinstance(named[0], str)):
        raise LabelFormatError(f"region {place}: wanted one label under {kind}, came {str(named)[:60]!r}")
    height, width = field_of(region, "original_height"), field_of(region, "original_width")
    if not (_is_length(height) and _is_length(width) and height * width <= MAX_PIXELS):
        raise LabelFormatError(
            f"region {place} is given for an image of original_height {height!r:.20}, original_width {width!r:.20}; "
            f"wanted positive whole numbers, {MAX_PIXELS:,} pixels at most"
        )
    if field_of(region, "image_rotation"):
        raise LabelFormatError(f"region {place} is given for a turned image; answer for the upright one")
    return Area(place, AreaKind(kind), named[0], height, width, value)


def _is_length(number: object) -> bool:
    return isinstance(number, int) and number >= 1


def _brush(value: Region, height: int, width: int) -> Mask:
    alpha = decode_alpha(field_of(value, "rle"), height, width)
    mask: Mask = alpha >= SOLID_ALPHA
    if not mask.any() and alpha.any():
        raise LabelFormatError(
            f"brush mask is nowhere more opaque than {alpha.max()} of 255; write masks as 0 and 255"
        )
    return mask
