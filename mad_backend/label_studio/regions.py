"""Regions that mark pixels: brush, bitmask, polygon, rectangle and ellipse, whoever made them, as opacities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.labels import Mask
from mad_backend.errors import LabelFormatError
from mad_backend.label_studio.bitmask import decode_bitmask
from mad_backend.label_studio.brush_rle import decode_alpha
from mad_backend.label_studio.results import Region, field_of
from mad_backend.label_studio.shapes import ellipse, polygon, rectangle

SOLID_ALPHA: Final = 128
"""Strokes are anti-aliased (alpha 0..255, measured); from half opaque on a pixel belongs to the region."""

MAX_PIXELS: Final = 200_000_000
"""As large as the largest image a pool may hold: a few bytes of run lengths can claim any size."""

NO_AREAS: Final = frozenset(
    {"relation", "choices", "rating", "number", "textarea", "taxonomy", "datetime", "pairwise", "ranker"}
)
"""Types of results that say something about the image, or about a region, but mark no pixels."""

_POINTS: Final = frozenset({"keypoint", "keypointlabels"})

_ANY_SHAPE: Final = "labels"
"""Type of a region whose label is of a <Labels> tag and whose shape is of another; `value` has the shape's keys."""


class AreaKind(StrEnum):
    """Types of regions that are understood, as Label Studio writes them."""

    BRUSH = "brushlabels"
    BITMASK = "bitmasklabels"
    POLYGON = "polygonlabels"
    RECTANGLE = "rectanglelabels"
    ELLIPSE = "ellipselabels"


_SHAPE_KEYS: Final = {
    "rle": AreaKind.BRUSH,
    "imageDataURL": AreaKind.BITMASK,
    "points": AreaKind.POLYGON,
    "radiusX": AreaKind.ELLIPSE,
    "width": AreaKind.RECTANGLE,
}
_WITHOUT_LABEL: Final = frozenset({"magicwand", *(kind.removesuffix("labels") for kind in AreaKind)})
"""Types of shapes that were drawn with a tag that gives no label."""


@dataclass(frozen=True)
class Area:
    """One region, not yet decoded: its place in the result (from 1), label, and the image's size it is given for."""

    place: int
    region_id: str | None
    kind: AreaKind
    label: str
    height: int
    width: int
    value: Region

    def opacity(self) -> NDArray[np.uint8]:
        """(height, width) uint8, 0 to 255; raises LabelFormatError where the region cannot be decoded."""
        try:
            return self._decoded()
        except LabelFormatError as error:
            raise LabelFormatError(f"region {self.place}: {error}") from error

    def mask(self) -> Mask:
        """(height, width) bool, opaque pixels; raises LabelFormatError also where the region is faint everywhere."""
        opacity = self.opacity()
        mask: Mask = opacity >= SOLID_ALPHA
        if not mask.any() and opacity.any():
            raise self.too_faint(int(opacity.max()))
        return mask

    def too_faint(self, most: int) -> LabelFormatError:
        """What to say of a region that is nowhere more opaque than `most`."""
        return LabelFormatError(
            f"region {self.place}: the mask is nowhere more opaque than {most} of 255, hardly to be seen in Label "
            "Studio; write masks as 0 and 255"
        )

    def _decoded(self) -> NDArray[np.uint8]:
        match self.kind:
            case AreaKind.BRUSH:
                return decode_alpha(field_of(self.value, "rle"), self.height, self.width)
            case AreaKind.BITMASK:
                return decode_bitmask(field_of(self.value, "imageDataURL"), self.height, self.width)
            case AreaKind.POLYGON:
                return _opaque(polygon(self.value, self.height, self.width))
            case AreaKind.RECTANGLE:
                return _opaque(rectangle(self.value, self.height, self.width))
            case AreaKind.ELLIPSE:
                return _opaque(ellipse(self.value, self.height, self.width))
            case _:
                assert_never(self.kind)


def areas_of(result: Sequence[object]) -> list[Area]:
    """The regions of one task's `result` that mark pixels, in paint order; every one must have a label.

    Raises LabelFormatError for a region of another type, without exactly one label, on a rotated image or of an
    impossible size.
    """
    areas, left_out = labelled_areas(result)
    if left_out:
        raise LabelFormatError(f"{left_out[0]}; wanted one label for every region")
    return areas


def labelled_areas(result: Sequence[object]) -> tuple[list[Area], list[str]]:
    """Those that have a label, in paint order, and what is to be said of each of the others: people forget to choose.

    Raises LabelFormatError as `areas_of`, but for regions without label and keypoints.
    """
    areas: list[Area] = []
    left_out: list[tuple[object, str]] = []
    for place, region in enumerate(result, start=1):
        kind = str(field_of(region, "type"))
        if kind in NO_AREAS:
            continue
        if kind in _POINTS:
            left_out.append((None, f"region {place} is a keypoint, which marks no pixels"))
        elif (area := _area(place, kind, region)) is None:
            left_out.append((field_of(region, "id"), f"region {place} has no label"))
        else:
            areas.append(area)
    # A shape of one tag and a label of another are two entries with one id, of which the second has all.
    known = {area.region_id for area in areas} - {None}
    return areas, [said for region_id, said in left_out if region_id not in known]


def _area(place: int, kind: str, region: object) -> Area | None:
    """None for a region without label."""
    value = field_of(region, "value")
    if kind in _WITHOUT_LABEL:
        return None
    shape = _shape(kind, value)
    if shape is None:
        raise LabelFormatError(f"region {place} has type {kind[:40]!r}; wanted {', '.join(AreaKind)}")
    named = field_of(value, kind)
    if isinstance(value, Mapping) and (named is None or named == []):
        return None
    if not (isinstance(named, list) and len(named) == 1 and isinstance(named[0], str)):
        raise LabelFormatError(f"region {place}: wanted one label under {kind}, came {str(named)[:60]!r}")
    height, width = field_of(region, "original_height"), field_of(region, "original_width")
    if not (_is_length(height) and _is_length(width) and height * width <= MAX_PIXELS):
        raise LabelFormatError(
            f"region {place} is given for an image of original_height {height!r:.20}, original_width {width!r:.20}; "
            f"wanted positive whole numbers, {MAX_PIXELS:,} pixels at most"
        )
    if turn := field_of(region, "image_rotation"):
        raise LabelFormatError(
            f"region {place} is given for the image turned by {str(turn)[:20]} degrees; turn it upright and draw anew"
        )
    region_id = field_of(region, "id")
    return Area(
        place, region_id if isinstance(region_id, str) else None, shape, named[0], height, width, value
    )


def _shape(kind: str, value: object) -> AreaKind | None:
    if kind == _ANY_SHAPE and isinstance(value, Mapping):
        return next((shape for key, shape in _SHAPE_KEYS.items() if key in value), None)
    return AreaKind(kind) if kind in tuple(AreaKind) else None


def _is_length(number: object) -> bool:
    return isinstance(number, int) and number >= 1


def _opaque(mask: Mask) -> NDArray[np.uint8]:
    return mask.view(np.uint8) * np.uint8(255)
